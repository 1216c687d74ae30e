import CHiredis
import CSQLite
import Wire
