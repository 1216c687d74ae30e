import Wire

/// What of DNS messages on the local link is needed to ask for addresses (RFC 6762, RFC 1035 section 4.1).
enum MulticastMessage {
    enum RecordType: UInt16, CaseIterable {
        case a = 1
        case aaaa = 28
    }

    struct Record: Equatable {
        /// Lower case, labels with dots between them, none at the end.
        var name: String
        var address: IPAddress
        /// Zero: it is good no longer (RFC 6762 section 10.1).
        var lifetime: Duration
    }

    static let headerSize = 12
    private static let classInternet: UInt16 = 1
    private static let longestName = 255
    private static let longestLabel = 63

    // MARK: Names

    /// The name as it is asked for, in lower case: nil unless it ends with ".local" after one label or more, all of
    /// letters, digits, "-" and "_" (RFC 6762 section 3; RFC 1035 section 2.3.4 for the lengths).
    static func name(_ text: String) -> String? {
        guard text.utf8.count <= longestName - 1 else { return nil }
        // Letters of ASCII only: Unicode has others whose small form is one of them.
        let small = String(decoding: text.utf8.map(smallLetter), as: UTF8.self)
        var labels = small.split(separator: ".", omittingEmptySubsequences: false)
        if labels.last?.isEmpty == true { labels.removeLast() }
        guard labels.count >= 2, labels.last == "local" else { return nil }
        for label in labels {
            guard (1...longestLabel).contains(label.utf8.count), label.utf8.allSatisfy(isPlain) else { return nil }
        }
        let name = labels.joined(separator: ".")
        return name.utf8.count <= longestName - 2 ? name : nil
    }

    private static func smallLetter(_ byte: UInt8) -> UInt8 { (0x41...0x5A).contains(byte) ? byte | 0x20 : byte }

    private static func isPlain(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x61...0x7A, 0x30...0x39, UInt8(ascii: "-"), UInt8(ascii: "_"): true
        default: false
        }
    }

    // MARK: Writing

    /// One question. Chromium's responder takes no more than one in a message, and none that asks for a unicast
    /// response (RFC 6762 section 5.4). `name` is what ``name(_:)`` gave.
    static func writeQuestion(
        _ name: String, _ type: RecordType, id: UInt16, to output: inout OutputRawSpan
    ) -> Bool {
        guard output.freeCapacity >= headerSize + name.utf8.count + 6 else { return false }
        output.write(id)
        output.write(0 as UInt16)
        output.write(1 as UInt16)
        for _ in 0..<3 { output.write(0 as UInt16) }
        for label in name.split(separator: ".") {
            output.write(UInt8(truncatingIfNeeded: label.utf8.count))
            for byte in label.utf8 { output.write(byte) }
        }
        output.write(0 as UInt8)
        output.write(type.rawValue)
        output.write(classInternet)
        return true
    }

    // MARK: Reading

    enum Contents: Equatable {
        /// The records of addresses in a response.
        case response(id: UInt16, [Record])
        /// A question of others, or what RFC 6762 sections 18.3 and 18.11 want ignored.
        case other
        case malformed
    }

    /// Reads the whole message: nothing of it counts if any part is malformed.
    static func read(_ message: RawSpan) -> Contents {
        var reader = ByteReader(message)
        guard let id: UInt16 = reader.read(), let flags: UInt16 = reader.read(), let questions: UInt16 = reader.read(),
            let answers: UInt16 = reader.read(), let authorities: UInt16 = reader.read(),
            let additional: UInt16 = reader.read()
        else { return .malformed }
        // QR says response; OPCODE and RCODE must be zero.
        guard flags & 0x8000 != 0, flags & 0x780F == 0 else { return .other }
        var offset = headerSize
        var name: [UInt8] = []
        for _ in 0..<questions {
            guard let next = readName(message, at: offset, &name), message.slice(at: next, count: 4) != nil else {
                return .malformed
            }
            offset = next &+ 4
        }
        var records: [Record] = []
        for _ in 0..<(Int(answers) &+ Int(authorities) &+ Int(additional)) {
            guard let next = readRecord(message, at: offset, &name, &records) else { return .malformed }
            offset = next
        }
        return .response(id: id, records)
    }

    /// Where the next one begins; nil if this one is malformed.
    private static func readRecord(
        _ message: RawSpan, at offset: Int, _ name: inout [UInt8], _ records: inout [Record]
    ) -> Int? {
        guard let start = readName(message, at: offset, &name),
            let type = message.load(bigEndianAt: start, as: UInt16.self),
            let kind = message.load(bigEndianAt: start &+ 2, as: UInt16.self),
            let seconds = message.load(bigEndianAt: start &+ 4, as: UInt32.self),
            let length = message.load(bigEndianAt: start &+ 8, as: UInt16.self),
            let data = message.slice(at: start &+ 10, count: Int(length))
        else { return nil }
        let next = start &+ 10 &+ Int(length)
        // RFC 6762 section 10.2: the highest bit of the class asks to forget older records.
        guard kind & 0x7FFF == classInternet, let type = RecordType(rawValue: type) else { return next }
        let address: IPAddress
        switch type {
        case .a:
            guard length == 4, let bits = data.load(bigEndianAt: 0, as: UInt32.self) else { return nil }
            address = IPAddress(v4: bits)
        case .aaaa:
            guard length == 16, let high = data.load(bigEndianAt: 0, as: UInt64.self),
                let low = data.load(bigEndianAt: 8, as: UInt64.self)
            else { return nil }
            address = IPAddress(high: high, low: low)
        }
        // A name with a dot or another strange letter inside a label is none that is asked for.
        guard !name.isEmpty else { return next }
        records.append(
            Record(name: String(decoding: name, as: UTF8.self), address: address, lifetime: .seconds(Int64(seconds))))
        return next
    }

    /// Reads a name into `name`, which stays empty if it is none that could be asked for. Where the field ends, or nil if
    /// it is malformed. RFC 1035 section 4.1.4: a pointer is to a prior occurrence, so each one leads farther back.
    private static func readName(_ message: RawSpan, at start: Int, _ name: inout [UInt8]) -> Int? {
        name.removeAll(keepingCapacity: true)
        var (offset, limit) = (start, start)
        var end: Int?
        var length = 0
        var isPlain = true
        while true {
            guard let size = message.load(bigEndianAt: offset, as: UInt8.self) else { return nil }
            switch size >> 6 {
            case 0:
                if size == 0 {
                    if !isPlain { name.removeAll(keepingCapacity: true) }
                    return end ?? offset &+ 1
                }
                length &+= Int(size) &+ 1
                guard length < longestName, let label = message.slice(at: offset &+ 1, count: Int(size)) else {
                    return nil
                }
                if !name.isEmpty { name.append(UInt8(ascii: ".")) }
                isPlain = append(label, to: &name) && isPlain
                offset = offset &+ 1 &+ Int(size)
            case 3:
                guard let pointer = message.load(bigEndianAt: offset, as: UInt16.self) else { return nil }
                if end == nil { end = offset &+ 2 }
                offset = Int(pointer & 0x3FFF)
                guard offset < limit, offset >= headerSize else { return nil }
                limit = offset
            default: return nil
            }
        }
    }

    /// RFC 1035 section 3.1: letters are the same in both cases. False for other letters than those of ``name(_:)``.
    private static func append(_ label: RawSpan, to name: inout [UInt8]) -> Bool {
        var isPlain = true
        for index in 0..<label.byteCount {
            let small = smallLetter(label.byte(index))
            isPlain = isPlain && self.isPlain(small)
            name.append(small)
        }
        return isPlain
    }
}
