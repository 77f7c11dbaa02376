"""What a set of pictures holds, what is wrong with it, and what would put it right: one pass, bounded memory."""

from sfumato.data.audit.finding import FIXES, KINDS, Audit, Finding
from sfumato.data.audit.run import audit

__all__ = ["FIXES", "KINDS", "Audit", "Finding", "audit"]
