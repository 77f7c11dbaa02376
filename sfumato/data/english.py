"""Common English words of one to eight letters, written down by hand: the real words that are drawn into pictures."""

from __future__ import annotations

ENGLISH = tuple(
    """
    a able about above across act add adult after again age ago agree air alarm album alive all allow almost alone along
    also always amber among anchor and angle animal ankle answer ant any apple april arch area arm army around arrow art
    ash ask at aunt autumn away axe baby back bacon badge bag bake bakery ball bamboo banana band bank bar bark barn base
    basil basket bath bay beach bean bear beard beauty bed bee beef before begin behind bell below belt bench berry best
    better bicycle big bike bill bird bit bitter black blanket blend bless block bloom blue board boat body boil bold
    bone book boot border both bottle bottom bow bowl box boy brain branch brass brave bread break breeze brick bridge
    bright bring broad bronze brook broom brother brown brush bubble bucket build bulb bus bush busy butter button buy
    by cabin cable cactus cage cake calm camel camera camp can canal candle candy canoe canvas cap car card cargo carpet
    carrot carry cart castle cat catch cave ceiling cell centre chain chair chalk change charm chase cheap check cheese
    cherry chess chest chicken child chimney choice church cinema circle city clay clean clear clever cliff climb clock
    close cloth cloud clown club coach coal coast coat cobra coconut coffee coin cold colour comb come comet common
    cookie cool copper coral corn corner cotton couch count country cousin cover cow crab cradle crane cream create creek
    cricket crisp crop cross crowd crown cry crystal cup curtain curve cycle daily dance danger dark date daughter dawn
    day deal dear debt deep deer degree delta desert desk dew diamond dice dinner dish distance do doctor dog doll
    dolphin donkey door dot double dove down dragon draw dream dress drink drive drop drum dry duck dust duty eagle ear
    early earth east easy eat echo edge eel egg eight elbow elder electric elephant eleven elf elm empty end energy
    engine enjoy enough enter equal error evening every exact example exit extra eye fable fabric face fact fair falcon
    fall family famous fan far farm fashion fast father feast feather feel fence fern ferry festival few field fifty
    fig film final find finger fire first fish five flag flame flat flavour fleet float flock floor flour flower flute
    fly foam fog fold folk food foot for forest fork form fort forty forward found fountain four fox frame free fresh
    friend frog from front frost fruit fuel full fun fur future galaxy game garage garden garlic gate gather gem gentle
    ghost giant gift ginger giraffe girl give glacier glad glass globe glove glow glue go goat gold golf good goose grain
    grand grape grass gravity great green grey grill ground group grow guard guest guide guitar gull habit hair half
    hall hammer hand happy harbour hard hare harp harvest hat hawk hazel head heart heat heavy hedge height hello help
    hen herb here hero high hill hint hobby hockey hold hole holiday home honest honey hood hook hope horn horse hot
    hotel hour house how huge human hundred hunt hurry ice icon idea idle igloo image inch index indigo ink inn insect
    inside invite iris iron island ivory ivy jacket jade jaguar jam january jar jaw jazz jeans jelly jewel job join joke
    journey joy judge jug juice july jump june jungle junior just kayak keen keep kernel kettle key kick kidney kind king
    kiosk kitchen kite kitten kiwi knee knife knight knock knot know koala label lace ladder lady lake lamb lamp land
    lane language lantern large laser last late laugh laurel lava law lawn layer lazy lead leaf league learn leather
    leave left leg lemon lens leopard letter level liberty library lid life lift light lily lime line lion lip list
    little live lizard load loaf lobster local lock lodge log long look loop loud love low loyal luck lunch lung machine
    magic magnet mail main make mango many map maple marble march margin market marsh mask master match meadow meal
    measure medal meet melon melody memory menu metal method midnight mile milk mill mind mint minute mirror mist mix
    model modern moment monday money monkey month moon morning moss moth mother motor mountain mouse mouth move much mud
    muffin museum music mystery nail name narrow nation nature navy near neat neck needle nest net never new news next
    nice night nine noble noise noon north nose note novel now number nurse nut oak oasis ocean october of office often
    oil old olive on once one onion only onyx open opera orange orbit orchard orchid order organ origin otter out oval
    oven over owl own oxygen oyster pace pack paddle page paint pair palace palm pan panda panel paper parade parcel park
    parrot part party pass past pasta path patient pattern peace peach peak peanut pear pearl pebble pen pencil penguin
    people pepper perfect person petal phone photo piano picnic picture pie piece pig pigeon pillow pilot pin pine pink
    pipe pizza place plain plan planet plant plate play please plenty plum pocket poem poet point polar pond pony pool
    poppy port pot potato pottery pour powder power present press price prince print prize proud public pudding puffin
    pull pumpkin pupil puppy pure purple purse push puzzle pyramid quail quality quarter quartz queen query quest quick
    quiet quilt quiz quote rabbit raccoon race radio raft rail rain raise ranch rapid raven raw read ready real recipe
    record red reef region relax remote rent repair rest result return rhyme ribbon rice rich ride right ring ripe
    river road roast robin robot rock rocket roll roof room root rope rose rough round route row royal ruby rug ruin
    rule run rural rush saddle safe saffron sail salad salmon salt same sand sandal satin saturn sauce save scale scarf
    school science scout screen sea search season seat second secret seed see senior seven shade shadow shape share
    shark sharp shed sheep sheet shelf shell ship shirt shoe shop short show shower side sign signal silent silk silver
    simple sing sister six size skate sketch ski skill skin sky sleep slice slow small smart smile smoke smooth snack
    snail snake snow soap soccer sock soda sofa soft soil solar solid some son song soon soul sound soup source south
    space spark speak special speed spell spice spider spin spirit spoon sport spring square squid stable stadium stage
    stair stamp star start station stay steam steel stem step stick still stone stop store storm story stove straw
    stream street string strong student studio style sugar suit summer sun sunday supper sure surf swan sweet swift swim
    swing symbol table tail tale talk tall tango tape target task taste taxi tea teach team temple ten tennis tent test
    thank that the theatre them theory thick thin thing think this thread three thumb thunder ticket tide tiger time tin
    tiny title to toast today toe together tomato tone tool tooth top torch total touch towel tower town toy track trade
    trail train travel tray treasure tree triangle trip truck true trumpet trunk trust truth try tulip tuna tunnel turkey
    turn turtle tutor twelve twenty twin two ultra uncle under union unit unity until up upon upper urban use usual
    vacuum valid valley value van vanilla vase vast velvet verb very vessel video view village vine violet violin vision
    visit vivid voice volcano voyage wagon wait walk wall walnut want warm wash watch water wave wax way weather web
    wedding week weight welcome well west wet whale wheat wheel when where white who whole why wide wild will willow win
    wind window wine wing winter wire wise with wizard wolf wonder wood wool word work world worm wrap wren wrist write
    wrong yacht yard year yeast yellow yes yoga yogurt you young your youth zebra zen zero zinc zone zoo zoom
    """.split()
)
