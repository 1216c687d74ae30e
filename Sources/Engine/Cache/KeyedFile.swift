import Reload
import Signaling
import Storage

/// What is kept by key, in memory and, if there is a path, in a file that other processes use too.
///
/// Reading takes no lock and touches no file. Changes count at once in this process; ``write()``, on a thread that may wait,
/// brings them into the file, between what others have written there.
final class KeyedFile<Record: KeptRecord>: Sendable {
    struct Coding: Sendable {
        var decode: @Sendable ([UInt8]) throws(SignalingError) -> KeyedContents<Record>
        var encode: @Sendable ([(key: String, record: Record)]) throws(SignalingError) -> [UInt8]
    }

    private enum Change: Sendable {
        case set(Record)
        case removed

        var isRemoval: Bool {
            if case .removed = self { true } else { false }
        }
    }

    private struct State {
        var records = KeyedRecords<Record>()
        /// Not in the file yet, with a number that tells a change from a later one of the same key.
        var changes: [String: (change: Change, number: UInt64)] = [:]
        var lastChange: UInt64 = 0
        /// The version of the file that `records` has taken in.
        var stamp: RecordFile.Stamp?
        /// Counts what was taken from the file.
        var version: UInt64 = 0
        var hasWarned = false
    }

    private let file: RecordFile?
    private let coding: Coding
    private let published = Published(KeyedRecords<Record>())
    private let state = Guarded(State())

    init(path: String?, coding: Coding) {
        file = path.map { RecordFile(path: $0) }
        self.coding = coding
    }

    subscript(_ key: String) -> Record? { published.value[key] }

    // MARK: Changing

    /// True if there is something to write.
    @discardableResult
    func set(_ key: String, _ record: Record) -> Bool {
        change(key) { $0 == record ? nil : .set(record) }
    }

    /// Removes the record if it still is one of those that `fits` names.
    @discardableResult
    func remove(_ key: String, where fits: (Record) -> Bool) -> Bool {
        change(key) { $0.map(fits) == true ? .removed : nil }
    }

    /// Removes the record, also one that only the file has.
    @discardableResult
    func remove(_ key: String) -> Bool { change(key) { _ in .removed } }

    private func change(_ key: String, _ decide: (Record?) -> Change?) -> Bool {
        state.withLock { state in
            guard let change = decide(state.records[key]) else { return false }
            state.lastChange &+= 1
            apply(change, key, &state.records)
            if file != nil { state.changes[key] = (change, state.lastChange) }
            published.publish(state.records)
            return file != nil
        }
    }

    private func apply(_ change: Change, _ key: String, _ records: inout KeyedRecords<Record>) {
        switch change {
        case .set(let record): records.set(key, record)
        case .removed: records.remove(key)
        }
    }

    // MARK: The file

    /// Something is not in the file yet.
    var hasChanges: Bool { state.withLock { !$0.changes.isEmpty } }

    /// Takes in what is in the file, if that is not known yet. A sentence if it cannot be used, once.
    func refresh() -> String? {
        guard let file else { return nil }
        let (known, version) = state.withLock { ($0.stamp, $0.version) }
        let stamp = file.stamp()
        guard stamp != known else { return nil }
        do throws(RecordFileError) {
            let contents = try file.read()
            let (records, refused) = try decode(contents?.bytes ?? [])
            take(records, stamp: contents?.stamp, ifStill: version)
            return refused > 0 ? warning("\(refused) of its entries are not valid") : nil
        } catch {
            take(KeyedRecords(), stamp: stamp, ifStill: version)
            return warning("\(error)")
        }
    }

    /// Brings the changes into the file. A sentence if that failed, once; they wait for the next time.
    func write() -> String? {
        guard let file else { return nil }
        let changes = state.withLock { $0.changes }
        guard !changes.isEmpty else { return nil }
        if file.stamp() == nil, changes.values.allSatisfy(\.change.isRemoval) {
            // There is nothing to remove it from.
            written(changes)
            return nil
        }
        var merged = KeyedRecords<Record>()
        do throws(RecordFileError) {
            let stamp = try file.update { old throws(RecordFileError) in
                if case .success(let bytes) = old, let (records, _) = try? decode(bytes) { merged = records }
                for (key, item) in changes { apply(item.change, key, &merged) }
                return try encode(&merged)
            }
            written(changes)
            take(merged, stamp: stamp, ifStill: nil)
            return nil
        } catch {
            return warning("\(error)")
        }
    }

    private func written(_ changes: [String: (change: Change, number: UInt64)]) {
        state.withLock { state in
            for (key, item) in changes where state.changes[key]?.number == item.number { state.changes[key] = nil }
            state.hasWarned = false
        }
    }

    /// What the file had, and over it what is not written yet.
    private func take(_ records: KeyedRecords<Record>, stamp: RecordFile.Stamp?, ifStill version: UInt64?) {
        state.withLock { state in
            // Another thread has read or written a later version meanwhile.
            guard version == nil || version == state.version else { return }
            state.version &+= 1
            state.stamp = stamp
            state.records = records
            for (key, item) in state.changes { apply(item.change, key, &state.records) }
            published.publish(state.records)
        }
    }

    private func decode(_ bytes: [UInt8]) throws(RecordFileError) -> (KeyedRecords<Record>, refused: Int) {
        var records = KeyedRecords<Record>()
        // One that was only just made.
        guard !bytes.isEmpty else { return (records, 0) }
        do throws(SignalingError) {
            let contents = try coding.decode(bytes)
            for (key, record) in contents.records { records.set(key, record) }
            return (records, contents.refused)
        } catch {
            throw error == .tooLarge ? .tooLarge : .malformed
        }
    }

    /// As much as fits: the oldest records go first.
    private func encode(_ records: inout KeyedRecords<Record>) throws(RecordFileError) -> [UInt8] {
        while true {
            let sorted = records.records.sorted { $0.key < $1.key }.map { (key: $0.key, record: $0.value) }
            guard let bytes = try? coding.encode(sorted) else { throw .unwritable(errno: 12) }
            if bytes.count <= RecordFile.maximumBytes { return bytes }
            // So that this ends soon, whatever the sizes are.
            let surplus = max(1, records.records.count * (bytes.count - RecordFile.maximumBytes) / bytes.count)
            for _ in 0..<surplus { records.removeOldest() }
        }
    }

    private func warning(_ sentence: String) -> String? {
        state.withLock { state in
            guard !state.hasWarned else { return nil }
            state.hasWarned = true
            return sentence
        }
    }
}
