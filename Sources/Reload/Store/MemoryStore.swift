import Wire

/// Sessions in this process's memory.
///
/// Look-up in constant time, in two senses. It takes the same number of steps however many sessions
/// there are: a hash table for tokens, a timing wheel for expiry. And its time tells nothing of the
/// tokens in the table: the position in the table is a hash keyed with a secret of this store
/// (SipHash-2-4), so a guess that shares a prefix with a real token lands somewhere unrelated; the
/// one candidate found there, or a decoy where there is none, is compared in full, without an early exit.
/// Tokens themselves are not kept, only their SHA-256.
public final class MemoryStore: SessionStore {
    public let capacity: Int
    private let sweepInterval: Duration
    private let hash: SipHash
    private let decoy: TokenDigest
    private var sessions: [Session?] = []
    private var free: [Int] = []
    private var slotOfToken: [UInt64: Int] = [:]
    private var slotOfClient: [ClientID: Int] = [:]
    private var wheel = TimingWheel(tick: .seconds(1))
    private var earliestSweep = Instant(nanoseconds: .min)
    /// Sessions that made room for newer ones.
    public private(set) var evicted = 0
    /// Called for each session that is gone: removed, swept or evicted.
    var onRemoval: ((ClientID) -> Void)?
    /// For tests: token comparisons made.
    private(set) var comparisons = 0

    /// `capacity` bounds the memory: about half a kilobyte a session, at most some ten with long candidates.
    public init(
        capacity: Int = 65_536, sweepInterval: Duration = .seconds(60), using random: inout some RandomNumberGenerator
    ) {
        self.capacity = max(capacity, 1)
        self.sweepInterval = sweepInterval
        hash = SipHash(using: &random)
        decoy = TokenDigest(SessionToken(using: &random))
    }

    public var count: Int { slotOfClient.count }

    var tokenCount: Int { slotOfToken.count }

    public func find(_ token: SessionToken, now: Instant) -> StoreAnswer {
        session(with: TokenDigest(token)).map { .session($0) } ?? .absent
    }

    func session(with digest: TokenDigest) -> Session? {
        let slot = slotOfToken[hash.hash(digest)]
        let session = slot.flatMap { sessions[$0] }
        // Every token of the session is compared, so that its age does not show; a miss compares decoys as often.
        var isSame = false
        for index in 0...Session.maximumPendingTokens {
            let candidate = session.flatMap { index < $0.tokens.count ? $0.tokens[index].digest : nil } ?? decoy
            comparisons += 1
            let equal = candidate == digest
            isSame = isSame || equal
        }
        return isSame ? session : nil
    }

    public func session(_ client: ClientID) -> Session? {
        slotOfClient[client].flatMap { sessions[$0] }
    }

    public func save(_ session: Session, now: Instant) -> Bool {
        guard let slot = slotOfClient[session.clientID] ?? newSlot(for: session.clientID) else { return false }
        if let known = sessions[slot] { forgetTokens(of: known, in: slot) }
        for issued in session.tokens { slotOfToken[hash.hash(issued.digest)] = slot }
        sessions[slot] = session
        if let expires = session.expires {
            wheel.schedule(slot, at: expires)
        } else {
            wheel.cancel(slot)
        }
        return true
    }

    public func remove(_ client: ClientID) {
        guard let slot = slotOfClient.removeValue(forKey: client), let session = sessions[slot] else { return }
        forgetTokens(of: session, in: slot)
        wheel.cancel(slot)
        sessions[slot] = nil
        free.append(slot)
        onRemoval?(client)
    }

    /// Bounds how long one sweep holds up everything else: some hundred microseconds.
    static let sweepBatch = 256

    public func sweep(now: Instant) -> Int {
        var removed = 0
        while removed < Self.sweepBatch, let slot = wheel.popExpired(at: now) {
            guard let session = sessions[slot] else { continue }
            remove(session.clientID)
            removed += 1
        }
        // A full batch may have left some: go on at once.
        earliestSweep = removed == Self.sweepBatch ? now : now + sweepInterval
        return removed
    }

    /// Expiry is checked at look-up, so sweeping only frees memory and need not be prompt.
    public var nextTimeout: Instant? { wheel.nextDue.map { max($0, earliestSweep) } }

    public func pollCompletion() -> (LookupID, StoreAnswer)? { nil }

    private func newSlot(for client: ClientID) -> Int? {
        if count >= capacity {
            // The session nearest to its end makes room; those with a connection stay.
            guard let oldest = wheel.earliest, let session = sessions[oldest] else { return nil }
            remove(session.clientID)
            evicted += 1
        }
        let slot: Int
        if let reused = free.popLast() {
            slot = reused
        } else {
            slot = sessions.count
            sessions.append(nil)
        }
        slotOfClient[client] = slot
        return slot
    }

    private func forgetTokens(of session: Session, in slot: Int) {
        for issued in session.tokens {
            let key = hash.hash(issued.digest)
            if slotOfToken[key] == slot { slotOfToken[key] = nil }
        }
    }
}
