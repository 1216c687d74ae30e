import Wire

/// RFC 3758, the sender's side.
extension Association {
    /// Gives up a message: none of its chunks is sent again, and what has no TSN yet never is.
    func abandon(_ index: Int) {
        guard !queue[index].abandoned else { return }
        counters.abandonedMessages &+= 1
        let chunks = queue[index].chunks
        let firstTSN = queue[index].firstTSN
        if !queue[index].complete {
            if let low = queue.abandonCurrent() { events.append(.bufferedAmountLow(stream: queue.streams[low].id)) }
            guard chunks > 0 else { return }
            // The peer may hold a beginning that is acknowledged already. A TSN that is never sent makes
            // the FORWARD TSN cover the message, so that the peer lets go of it.
            queue[index].chunks &+= 1
            queue[index].unacknowledged &+= 1
            var placeholder = OutstandingChunk()
            placeholder.message = UInt32(truncatingIfNeeded: index)
            placeholder.flags = DataFlag.end
            outstanding.append(placeholder, abandoned: true)
        }
        queue[index].abandoned = true
        for step in 0..<chunks {
            let tsn = firstTSN.advanced(by: step)
            if outstanding.contains(tsn) { outstanding.abandon(tsn) }
        }
        queue.releasePayload(index)
    }

    /// Section 3.5, C1 to C4: moves Advanced.Peer.Ack.Point over abandoned chunks and tells the peer.
    func advanceAckPoint(_ now: Instant, force: Bool) {
        guard features.partialReliability else { return }
        if advancedAckPoint.precedes(outstanding.cumulative) { advancedAckPoint = outstanding.cumulative }
        var moved = false
        while outstanding.contains(advancedAckPoint.next), outstanding.isAbandoned(advancedAckPoint.next) {
            advancedAckPoint = advancedAckPoint.next
            moved = true
        }
        guard advancedAckPoint.follows(outstanding.cumulative) else { return }
        // Told once for each move and each round trip; more often would say nothing new.
        if moved || force || now - forwardSentAt > (timeout.smoothed ?? timeout.value) { control.insert(.forwardTSN) }
    }

    /// Section 3.2. Each ordered stream is named with the highest sequence number given up; if they do
    /// not all fit, the new cumulative TSN stays before the first that does not.
    func writeForwardTSN(_ output: inout OutputRawSpan, end: Int, now: Instant) {
        let room = (end &- output.byteCount &- 8) / 4
        guard room > 0, advancedAckPoint.follows(outstanding.cumulative) else { return }
        var skipped: ContiguousArray<(stream: UInt16, sequence: UInt16)> = []
        var target = outstanding.cumulative
        var tsn = outstanding.first
        while tsn.precedesOrEquals(advancedAckPoint), outstanding.contains(tsn) {
            let index = Int(outstanding[tsn].message)
            let message = queue[index]
            if message.ordered {
                let stream = queue.streams[Int(message.slot)].id
                if let known = skipped.firstIndex(where: { $0.stream == stream }) {
                    skipped[known].sequence = message.sequence
                } else {
                    guard skipped.count < room else { break }
                    skipped.append((stream, message.sequence))
                }
            }
            let last = message.firstTSN.advanced(by: message.chunks &- 1)
            target = last.precedes(advancedAckPoint) ? last : advancedAckPoint
            tsn = target.next
        }
        guard target.follows(outstanding.cumulative) else { return }
        output.write(UInt32(ChunkType.forwardTSN) << 24 | UInt32(truncatingIfNeeded: 8 &+ 4 &* skipped.count))
        output.write(target.value)
        for (stream, sequence) in skipped {
            output.write(stream)
            output.write(sequence)
        }
        forwardSentAt = now
        if !timers.isSet(.retransmission) { timers[.retransmission] = now + timeout.value }
    }
}
