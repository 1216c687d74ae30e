import STUN
import Wire

/// Both sides' credentials between two restarts, prepared for use per packet.
struct Generation {
    let number: UInt8
    let localUfrag: [UInt8]
    let localKey: IntegrityKey
    private(set) var remote: Remote?

    struct Remote {
        let ufrag: [UInt8]
        /// USERNAME of our checks (RFC 8445 section 7.2.2): the other side's ufrag, a colon, ours.
        let username: [UInt8]
        /// Nil if this agent makes no checks.
        let key: IntegrityKey?
    }

    init(_ number: UInt8, _ credentials: Credentials) {
        self.number = number
        localUfrag = Array(credentials.ufrag.utf8)
        localKey = IntegrityKey(password: credentials.password)
    }

    mutating func setRemote(_ credentials: Credentials, checks: Bool) {
        let ufrag = Array(credentials.ufrag.utf8)
        remote = Remote(
            ufrag: ufrag, username: ufrag + [UInt8(ascii: ":")] + localUfrag,
            key: checks ? IntegrityKey(password: credentials.password) : nil)
    }
}
