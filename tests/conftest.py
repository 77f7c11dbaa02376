"""Files are the same bytes for the same picture: only tests of signing sign, with a folder of their own for the key."""

import os

os.environ["SFUMATO_CREDENTIALS"] = "off"
