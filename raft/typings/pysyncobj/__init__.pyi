from .config import FAIL_REASON as FAIL_REASON
from .config import SyncObjConf as SyncObjConf
from .syncobj import SyncObj as SyncObj
