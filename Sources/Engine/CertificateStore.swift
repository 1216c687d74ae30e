import CSystem
import DTLS
import Storage
import Wire

/// The engine's certificates over its life: from their files or made now, replaced in time, kept as long as they are
/// needed. Every method may be called from every thread.
///
/// The current one is in the file PATH, those it replaced are in PATH.previous, the last one first. A replacement
/// writes the second file, then the first, each in one step: whenever the process ends, the two hold the set as it was
/// or as it is to be. What PATH.previous has too much (the current certificate itself, or one more than is kept) is left
/// out when it is read.
final class CertificateStore: Sendable {
    struct Policy: Sendable {
        /// When a certificate is replaced; nil: when its validity is over.
        var lifetime: Duration? = .seconds(30 * 86_400)
        /// How long a replaced certificate stays.
        var overlap = Duration.seconds(4200)
    }

    typealias Notes = [(LogLevel, String)]

    private let policy: Policy
    private let files: CertificateFiles?
    private let held: Guarded<CertificateSet>
    /// One change at a time; held while files are written, which may take long. When one that failed is tried again.
    private let changing = Guarded(Int64.min)

    private init(policy: Policy, files: CertificateFiles?, set: CertificateSet) {
        self.policy = policy
        self.files = files
        held = Guarded(set)
    }

    var set: CertificateSet { held.withLock { $0 } }

    // MARK: Opening

    /// Loads what there is and makes what is missing. The notes are for the log, once there is one.
    static func open(path: String?, policy: Policy, wallClock: Int64) throws(Failure) -> (CertificateStore, Notes) {
        guard let path else {
            let set = try CertificateSet(current: try make(policy, wallClock, avoiding: []), previous: [])
            let store = CertificateStore(policy: policy, files: nil, set: set)
            return (store, [(.info, LogLine.certificate(.create(isOnDisk: false)))])
        }
        let files = CertificateFiles(path: path)
        // More than once only if another engine makes the files at the same time.
        for _ in 0..<4 {
            if let opened = try open(files, policy, wallClock) { return opened }
        }
        throw Failure(.storage, "the certificate file \(path) comes and goes")
    }

    /// Nil if the file appeared meanwhile.
    private static func open(
        _ files: CertificateFiles, _ policy: Policy, _ wallClock: Int64
    ) throws(Failure) -> (CertificateStore, Notes)? {
        var notes: Notes = []
        let kept = files.loadPrevious(&notes)
        let loaded = try files.loadCurrent(wallClock, &notes)
        if case .certificate(let current) = loaded {
            let previous = remaining(kept, after: current, policy, wallClock)
            let age = current.age(at: wallClock)
            notes.append((.info, LogLine.certificate(.load(age: age, previous: previous.count))))
            let set = try CertificateSet(current: current, previous: previous)
            let store = CertificateStore(policy: policy, files: files, set: set)
            if let change = store.maintain(wallClock: wallClock) { notes += change.notes }
            return (store, notes)
        }
        let made = try make(policy, wallClock, avoiding: kept)
        if case .expired = loaded {
            try files.storeCurrent(made)
            notes.append((.warning, LogLine.certificate(.replaceExpired(isOnDisk: true))))
        } else {
            guard try files.createCurrent(made) else { return nil }
            notes.append((.info, LogLine.certificate(.create(isOnDisk: true))))
        }
        let set = try CertificateSet(current: made, previous: remaining(kept, after: made, policy, wallClock))
        return (CertificateStore(policy: policy, files: files, set: set), notes)
    }

    // MARK: Replacing

    /// Makes a new certificate, also on disk. After a failure everything is as it was. `adopt` is called with the change
    /// before another one can be made.
    func rotate(wallClock: Int64, adopt: (CertificateChange) -> Void = { _ in }) throws(Failure) {
        let result: Result<Void, Failure> = changing.withLock { nextTry in
            do throws(Failure) {
                adopt(try replaced(wallClock))
                nextTry = .min
                return .success(())
            } catch {
                return .failure(error)
            }
        }
        try result.get()
    }

    private func replaced(_ wallClock: Int64) throws(Failure) -> CertificateChange {
        guard let files else { return try replaced(set.certificates, in: nil, wallClock) }
        return try files.locked { () throws(Failure) in
            try replaced(known(files, wallClock), in: files, wallClock)
        }
    }

    /// `certificates`: all that are to be kept as far as there is room, the newest first.
    private func replaced(
        _ certificates: [Certificate], in files: CertificateFiles?, _ wallClock: Int64
    ) throws(Failure) -> CertificateChange {
        let made = try CertificateStore.make(policy, wallClock, avoiding: certificates)
        let previous = CertificateStore.remaining(certificates, after: made, policy, wallClock)
        let new = try CertificateSet(current: made, previous: previous)
        // One more than is kept: until the new one is in place, the oldest still belongs to the set.
        let surplus = Array(certificates.prefix(CertificateSet.previousLimit + 1))
        try files?.replace(with: made, previous: surplus)
        held.withLock { $0 = new }
        let line = LogLine.certificate(.rotate(isOnDisk: files != nil, previous: previous.count))
        return CertificateChange(set: new, isRotation: true, notes: [(.info, line)])
    }

    /// Ours, and those that another engine with the same files has made meanwhile; the newest first.
    private func known(_ files: CertificateFiles, _ wallClock: Int64) -> [Certificate] {
        let ours = set.certificates
        var fingerprints = Set(ours.map { $0.fingerprint(.sha256) })
        let (current, previous) = files.reload(wallClock)
        func isNew(_ certificate: Certificate) -> Bool {
            fingerprints.insert(certificate.fingerprint(.sha256)).inserted
        }
        let newer = [current].compactMap { $0 }.filter(isNew)
        return newer + ours + previous.filter(isNew)
    }

    /// Another engine with the same files has replaced the certificate: its certificate becomes ours too.
    private func taken(_ files: CertificateFiles, _ wallClock: Int64) throws(Failure) -> CertificateChange? {
        let certificates = known(files, wallClock)
        guard let newest = certificates.first, !isOver(newest, wallClock),
            newest.fingerprint(.sha256) != set.current.certificate.fingerprint(.sha256)
        else { return nil }
        let previous = CertificateStore.remaining(Array(certificates.dropFirst()), after: newest, policy, wallClock)
        let new = try CertificateSet(current: newest, previous: previous)
        held.withLock { $0 = new }
        let line = LogLine.certificate(.load(age: newest.age(at: wallClock), previous: previous.count))
        return CertificateChange(set: new, isRotation: true, notes: [(.info, line)])
    }

    // MARK: In time

    /// Seconds after which a replacement that failed is tried again.
    private static let retry: Int64 = 3600
    /// Seconds after which the files are looked at again: another engine may have replaced the certificate.
    private static let glance: Int64 = 60

    /// True if ``maintain(wallClock:adopt:)`` has something to do, or to look at.
    func isDue(wallClock: Int64) -> Bool {
        let set = set
        return files != nil || isOver(set.current.certificate, wallClock) || retires(set, wallClock)
    }

    /// When to look again, at the latest: clocks are set, machines sleep.
    func nextCheck(wallClock: Int64) -> Duration {
        let set = set
        let current = set.current.certificate
        let limit = Duration.seconds(files == nil ? CertificateStore.retry : CertificateStore.glance)
        var left = [limit, current.remaining(wallClock: wallClock)]
        if let lifetime = policy.lifetime { left.append(lifetime - current.age(at: wallClock)) }
        for due in CertificateStore.retirements(set.certificates, policy) {
            left.append(.seconds(due.subtractingReportingOverflow(wallClock).partialValue))
        }
        // What is over already has been seen to, or failed: not at once again.
        return left.filter { $0 > .zero }.min() ?? limit
    }

    /// Replaces the certificate if it is old enough, and gives up what is not needed any more. A failure is a note, and
    /// it is tried again an hour later. Nil: there was nothing to do.
    @discardableResult
    func maintain(wallClock: Int64, adopt: (CertificateChange) -> Void = { _ in }) -> CertificateChange? {
        changing.withLock { nextTry in
            if let files, let change = try? taken(files, wallClock) {
                adopt(change)
                return change
            }
            let set = set
            var change: CertificateChange?
            if isOver(set.current.certificate, wallClock) {
                // A clock that went back does not keep it waiting.
                let (wait, isFar) = nextTry.subtractingReportingOverflow(wallClock)
                guard isFar || wait <= 0 || wait > CertificateStore.retry else { return nil }
                do throws(Failure) {
                    change = try replaced(wallClock)
                    nextTry = .min
                } catch {
                    nextTry = wallClock.addingReportingOverflow(CertificateStore.retry).partialValue
                    let line = "[CERTIFICATE] Not replaced: \(error.detail)"
                    change = CertificateChange(set: set, isRotation: false, isFailure: true, notes: [(.warning, line)])
                }
            } else if retires(set, wallClock) {
                change = retired(set, wallClock)
            }
            if let change { adopt(change) }
            return change
        }
    }

    private func retired(_ set: CertificateSet, _ wallClock: Int64) -> CertificateChange? {
        let left = CertificateStore.remaining(
            set.previous.map(\.certificate), after: set.current.certificate, policy, wallClock)
        do throws(Failure) {
            let new = try CertificateSet(current: set.current.certificate, previous: left)
            held.withLock { $0 = new }
            var notes: Notes = [(.info, LogLine.certificate(.retire(previous: left.count)))]
            do throws(Failure) {
                try files?.locked { () throws(Failure) in try files?.storePrevious(left) }
            } catch {
                notes.append((.warning, "[CERTIFICATE] \(error.detail)"))
            }
            return CertificateChange(set: new, isRotation: false, notes: notes)
        } catch {
            return nil
        }
    }

    private func isOver(_ certificate: Certificate, _ wallClock: Int64) -> Bool {
        if certificate.isExpired(wallClock: wallClock) { return true }
        guard let lifetime = policy.lifetime else { return false }
        return certificate.age(at: wallClock) >= lifetime
    }

    private func retires(_ set: CertificateSet, _ wallClock: Int64) -> Bool {
        CertificateStore.retirements(set.certificates, policy).contains { $0 <= wallClock }
    }

    // MARK: Rules

    /// When each but the first of `certificates`, the newest first, is not needed any more: it was replaced when the
    /// one before it was made.
    private static func retirements(_ certificates: [Certificate], _ policy: Policy) -> [Int64] {
        let overlap = max(0, policy.overlap.nanoseconds) / 1_000_000_000
        return certificates.dropLast().map { successor in
            let (due, isOverflow) = successor.made.addingReportingOverflow(overlap)
            return isOverflow ? .max : due
        }
    }

    /// Those of `candidates`, the newest first, that a set with `current` still holds.
    private static func remaining(
        _ candidates: [Certificate], after current: Certificate, _ policy: Policy, _ wallClock: Int64
    ) -> [Certificate] {
        var chain = [current]
        var identifiers: Set = [current.identifier]
        for certificate in candidates where identifiers.insert(certificate.identifier).inserted {
            chain.append(certificate)
        }
        let retirements = retirements(chain, policy)
        return zip(chain.dropFirst(), retirements).filter { $0.1 > wallClock }.prefix(CertificateSet.previousLimit)
            .map(\.0)
    }

    /// A new certificate that cannot be mistaken for one of `others`.
    private static func make(_ policy: Policy, _ wallClock: Int64, avoiding others: [Certificate]) throws(Failure)
        -> Certificate
    {
        // Valid beyond its replacement; without one, for as long as it may be.
        let validity = policy.lifetime.map { max($0 * 2, .seconds(365 * 86_400)) } ?? .seconds(50 * 365 * 86_400)
        let taken = Set(others.map(\.identifier))
        do throws(CertificateError) {
            for _ in 0..<256 {
                let certificate = try Certificate.make(wallClock: wallClock, lifetime: validity)
                if !taken.contains(certificate.identifier) { return certificate }
            }
        } catch {
            throw Failure(.system, "cannot make a certificate: \(error)")
        }
        throw Failure(.system, "cannot make a certificate that differs from the ones before")
    }
}

extension Certificate {
    /// How long ago it was made; never negative.
    func age(at wallClock: Int64) -> Duration {
        max(.zero, .seconds(wallClock.subtractingReportingOverflow(made).partialValue))
    }
}
