public import Wire

extension Association {
    /// Counters and gauges. Counters only grow.
    public struct Statistics: Sendable {
        public var packetsSent: UInt64 = 0
        public var packetsReceived: UInt64 = 0
        public var bytesSent: UInt64 = 0
        public var bytesReceived: UInt64 = 0
        public var messagesSent: UInt64 = 0
        public var messagesReceived: UInt64 = 0
        /// Bytes of user data sent for the first time.
        public var payloadBytesSent: UInt64 = 0
        /// Bytes of user data received for the first time.
        public var payloadBytesReceived: UInt64 = 0
        /// DATA chunks sent again.
        public var retransmittedChunks: UInt64 = 0
        public var fastRetransmits: UInt64 = 0
        /// Expiries of T3-rtx.
        public var retransmissionTimeouts: UInt64 = 0
        /// Messages given up by limited reliability.
        public var abandonedMessages: UInt64 = 0
        public var duplicateChunks: UInt64 = 0

        public var droppedMalformed: UInt64 = 0
        public var droppedChecksum: UInt64 = 0
        public var droppedVerificationTag: UInt64 = 0
        public var droppedPort: UInt64 = 0
        /// Valid, but not expected in this state.
        public var droppedUnexpected: UInt64 = 0
        /// DATA chunks beyond the receiver window.
        public var droppedWindow: UInt64 = 0
        /// Fragments and messages that belong to nothing: their rest was given up by the peer.
        public var droppedOrphans: UInt64 = 0
        /// State cookies that did not verify.
        public var droppedCookie: UInt64 = 0

        public var smoothedRoundTrip: Duration?
        public var retransmissionTimeout: Duration = .zero
        public var congestionWindow = 0
        public var bytesInFlight = 0
        public var peerWindow = 0
        /// Memory held for messages from the peer, overheads included.
        public var receiveBufferUsed = 0
        /// Memory held for messages to the peer, overheads included.
        public var sendBufferUsed = 0
    }
}
