import Compression
import Engine
import Replay
import Wire

/// The compressor of a buffer: made when it is needed first, since its tables take 1 MB.
struct LazyCompressor {
    private var made: Compressor?

    /// nil: there is no memory.
    mutating func get() -> Compressor? {
        if made == nil { made = Compressor() }
        return made
    }
}

/// Messages are compressed before they go into a store, and restored when they go out to the host. A store that several
/// servers share may have compressed messages whatever this one's settings say.
extension Core {
    /// An outcome's messages may grow to this many times ``Replay/Configuration/maximumBatchBytes``.
    static let maximumGrowth = 4

    /// nil: as it is.
    func compressed(_ data: RawSpan) -> [UInt8]? {
        guard settings.compresses, data.byteCount > Compressor.minimumSize else { return nil }
        return compressor.get()?.compress(data)
    }

    /// What was published; nil if that cannot be known: altered, or made with a dictionary that this version has not.
    func restored(_ message: LiveMessage) -> [UInt8]? {
        do throws(CompressionError) {
            return try restored(message.payload.span.bytes, maximumSize: Settings.maximumMessageSize)
        } catch {
            noteUnreadable(error)
            return nil
        }
    }

    /// The messages as they were published. If that cannot be, there are none, and a verdict that says that nothing is
    /// missing becomes another one.
    func restored(_ batch: borrowing Batch, _ recovery: inout Recovery) -> Batch {
        let limit = Self.maximumGrowth &* settings.rooms.maximumBatchBytes
        var output = Batch()
        for record in batch.records {
            guard let stored = batch.bytes.span.bytes.slice(at: record.offset, count: record.count) else {
                return lost(.store, &recovery)
            }
            let properties = MessageProperties(record.kind, isText: record.isText, negotiation: record.negotiation)
            let left = limit &- output.bytes.count
            guard record.isCompressed else {
                guard record.count <= left else { return lost(.limit, &recovery) }
                output.append(sequence: record.sequence, properties, payload: stored)
                continue
            }
            do throws(CompressionError) {
                let content = try restored(stored, maximumSize: min(left, Settings.maximumMessageSize))
                output.append(sequence: record.sequence, properties, payload: content.span.bytes)
            } catch {
                if error == .tooLarge, left < Settings.maximumMessageSize { return lost(.limit, &recovery) }
                noteUnreadable(error)
                return lost(.store, &recovery)
            }
        }
        return output
    }

    private func restored(_ stored: RawSpan, maximumSize: Int) throws(CompressionError) -> [UInt8] {
        guard let compressor = compressor.get() else { throw .corrupt }
        return try compressor.decompress(stored, maximumSize: maximumSize)
    }

    private func lost(_ reason: LossReason, _ recovery: inout Recovery) -> Batch {
        if recovery.verdict.isRecovered { recovery.verdict = .lost(reason) }
        return Batch()
    }

    /// Counted; the first is told.
    private func noteUnreadable(_ error: CompressionError) {
        countUnreadable()
        guard counters.unreadable == 1 else { return }
        let reason =
            switch error {
            case .unknownVersion(let version): "dictionary Version=\(version)"
            case .corrupt: "corrupt"
            case .tooLarge: "size"
            }
        log(.warning, "[REPLAY] Message=unreadable Reason=\(reason)")
    }
}
