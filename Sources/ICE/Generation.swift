import STUN
import Wire

/// What belongs to both sides' credentials between two restarts, prepared for use per packet.
struct Generation {
    let number: UInt32
    let credentials: Credentials
    let localUfrag: [UInt8]
    let localKey: IntegrityKey
    private(set) var remote: Remote?
    var remoteIsLite = false
    var remoteIsComplete = false
    /// Both sides announced the ICE option "renomination".
    var usesRenomination = false
    var remoteCandidates: [Candidate] = []
    var reportedVerified = false
    /// The highest nomination heard, or made.
    var nomination: UInt32 = 0

    struct Remote {
        let ufrag: [UInt8]
        /// USERNAME of our checks (RFC 8445 section 7.2.2): the other side's ufrag, a colon, ours.
        let username: [UInt8]
        /// Nil if this agent makes no checks.
        let key: IntegrityKey?
    }

    func isNamed(_ ufrag: RawSpan) -> Bool {
        let own = localUfrag
        return ufrag.elementsEqual(own.span.bytes)
    }

    init(_ number: UInt32, _ credentials: Credentials) {
        self.number = number
        self.credentials = credentials
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
