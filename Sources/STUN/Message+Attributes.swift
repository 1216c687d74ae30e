public import Wire

/// The attributes' values. One that is absent, or of a length its type does not allow, is nil.
extension Message {
    public var username: RawSpan? { @_lifetime(copy self) get { value(of: .username) } }
    public var software: RawSpan? { @_lifetime(copy self) get { value(of: .software) } }
    public var realm: RawSpan? { @_lifetime(copy self) get { value(of: .realm) } }
    public var nonce: RawSpan? { @_lifetime(copy self) get { value(of: .nonce) } }

    /// The receiver's ufrag in an ICE check: USERNAME up to the first colon (RFC 8445 section 7.2.2).
    public var receiverUfrag: RawSpan? {
        @_lifetime(copy self) get {
            guard let username else { return nil }
            return ufragBeforeColon(username)
        }
    }

    /// The sender's ufrag in an ICE check: USERNAME behind the first colon.
    public var senderUfrag: RawSpan? {
        @_lifetime(copy self) get {
            guard let username, let receiver = ufragBeforeColon(username) else { return nil }
            let start = receiver.byteCount &+ 1
            return username.slice(at: start, count: username.byteCount &- start)
        }
    }

    public var priority: UInt32? { integer(.priority) }
    public var usesCandidate: Bool { value(of: .useCandidate) != nil }
    /// The number of a nomination, of which only 24 bits count.
    public var nomination: UInt32? { (integer(.nomination) as UInt32?).map { $0 & 0xFF_FFFF } }
    /// The tie-breaker of a sender in the controlled role.
    public var iceControlled: UInt64? { integer(.iceControlled) }
    /// The tie-breaker of a sender in the controlling role.
    public var iceControlling: UInt64? { integer(.iceControlling) }

    public var mappedAddress: SocketAddress? { address(.mappedAddress) }
    public var xorMappedAddress: SocketAddress? { address(.xorMappedAddress) }
    public var alternateServer: SocketAddress? { address(.alternateServer) }
    public var xorPeerAddress: SocketAddress? { address(.xorPeerAddress) }
    /// One of the relayed addresses: there are two where both families were asked for (RFC 8656 section 7.3).
    public func xorRelayedAddress(_ index: Int) -> SocketAddress? { address(.xorRelayedAddress, index) }

    /// LIFETIME in seconds.
    public var lifetime: UInt32? { integer(.lifetime) }

    /// ADDRESS-ERROR-CODE (RFC 8656 section 18.12): the family that was not given, and why not.
    public var addressError: (isIPv6: Bool, code: Int)? {
        addressError(.addressErrorCode) ?? addressError(.draftAddressErrorCode)
    }

    private func addressError(_ type: AttributeType) -> (isIPv6: Bool, code: Int)? {
        guard let value = value(of: type), let word = value.load(bigEndianAt: 0, as: UInt32.self),
            word >> 24 == 1 || word >> 24 == 2, let code = errorCode(word)
        else { return nil }
        return (word >> 24 == 2, code)
    }

    /// The number of ERROR-CODE, 300 to 699 (RFC 8489 section 14.8).
    public var errorCode: Int? {
        guard let value = value(of: .errorCode), let word = value.load(bigEndianAt: 0, as: UInt32.self) else {
            return nil
        }
        return errorCode(word)
    }

    private func errorCode(_ word: UInt32) -> Int? {
        let hundreds = Int(word >> 8 & 0x7)
        let rest = Int(word & 0xFF)
        guard hundreds >= 3, hundreds <= 6, rest <= 99 else { return nil }
        return hundreds &* 100 &+ rest
    }

    public var errorReason: RawSpan? {
        @_lifetime(copy self) get {
            guard let value = value(of: .errorCode), value.byteCount >= 4 else { return nil }
            return value.slice(at: 4, count: value.byteCount &- 4)
        }
    }

    /// The types a response of code 420 complains about (RFC 8489 section 14.9), the first few.
    public var refusedAttributes: UnknownAttributes {
        var types = UnknownAttributes()
        guard let value = value(of: .unknownAttributes) else { return types }
        var offset = 0
        while let type = value.load(bigEndianAt: offset, as: UInt16.self), types.count < 8 {
            types.append(type)
            offset &+= 2
        }
        return types
    }

    private func integer<Value: FixedWidthInteger & BitwiseCopyable>(_ type: AttributeType) -> Value? {
        guard let value = value(of: type), value.byteCount == MemoryLayout<Value>.size else { return nil }
        return value.load(bigEndianAt: 0, as: Value.self)
    }

    /// RFC 8489 sections 14.1 and 14.2: family 1 and 4 bytes, or family 2 and 16; the XOR variant is
    /// masked with the cookie and, for IPv6, the transaction ID, against NATs that rewrite addresses.
    private func address(_ type: AttributeType, _ index: Int = 0) -> SocketAddress? {
        guard let value = value(of: type, index), let family = value.load(bigEndianAt: 1, as: UInt8.self),
            let port = value.load(bigEndianAt: 2, as: UInt16.self)
        else { return nil }
        let mask = type.isMasked ? AddressMask(transactionID) : .none
        switch (family, value.byteCount) {
        case (1, 8):
            guard let bits = value.load(bigEndianAt: 4, as: UInt32.self) else { return nil }
            return SocketAddress(ip: IPAddress(v4: bits ^ mask.v4), port: port ^ mask.port)
        case (2, 20):
            guard let high = value.load(bigEndianAt: 4, as: UInt64.self),
                let low = value.load(bigEndianAt: 12, as: UInt64.self)
            else { return nil }
            return SocketAddress(ip: IPAddress(high: high ^ mask.high, low: low ^ mask.low), port: port ^ mask.port)
        default: return nil
        }
    }
}

/// What an address is XORed with (RFC 8489 section 14.2).
struct AddressMask {
    let port: UInt16
    let v4: UInt32
    let high: UInt64
    let low: UInt64

    static let none = AddressMask(port: 0, v4: 0, high: 0, low: 0)

    private init(port: UInt16, v4: UInt32, high: UInt64, low: UInt64) {
        self.port = port
        self.v4 = v4
        self.high = high
        self.low = low
    }

    init(_ id: TransactionID) {
        port = UInt16(magicCookie >> 16)
        v4 = magicCookie
        high = UInt64(magicCookie) << 32 | UInt64(id.high)
        low = id.low
    }
}
