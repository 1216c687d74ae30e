import Peer
import Reload
import SCTP
import Signaling

extension Loop {
    func openControl(_ connection: Connection) {}
}
