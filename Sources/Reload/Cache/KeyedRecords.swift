public import Signaling

/// Something that is kept under a key and gets old.
public protocol KeptRecord: Hashable, Sendable {
    /// Unix time in milliseconds; the smallest goes first when there is no room.
    var keptTime: Int64 { get }
}

extension CacheEntry: KeptRecord {
    public var keptTime: Int64 { timestamp }
}

extension Ticket: KeptRecord {
    public var keptTime: Int64 { expires }
}

/// Records by key, never more than ``maximumCount``.
public struct KeyedRecords<Record: KeptRecord>: Sendable, Equatable {
    public private(set) var records: [String: Record] = [:]

    public init() {}

    public static var maximumCount: Int { 1024 }
    public static var maximumKeyBytes: Int { 256 }

    public static func isKey(_ text: String) -> Bool { (1...maximumKeyBytes).contains(text.utf8.count) }

    public subscript(_ key: String) -> Record? { records[key] }

    public mutating func set(_ key: String, _ record: Record) {
        guard KeyedRecords.isKey(key) else { return }
        records[key] = record
        // What was just put in is the newest, whatever it says about itself.
        while records.count > KeyedRecords.maximumCount, let oldest = oldest(but: key) { records[oldest] = nil }
    }

    public mutating func remove(_ key: String) { records[key] = nil }

    @discardableResult
    public mutating func removeOldest() -> String? {
        guard let oldest = oldest(but: nil) else { return nil }
        records[oldest] = nil
        return oldest
    }

    private func oldest(but kept: String?) -> String? {
        records.filter { $0.key != kept }
            .min { ($0.value.keptTime, $0.key) < ($1.value.keptTime, $1.key) }?.key
    }
}
