// swift-format-ignore-file: AlwaysUseLowerCamelCase
// The names are those of the header.

public import CReconnect
import Engine
import Wire

extension PeerConfiguration {
    /// Of a peer whose first exchange is somebody else's affair: the host's or the library's.
    init(exchanged config: UnsafePointer<reconnect_peer_config_t>?) throws(Failure) {
        try unsafe self.init(config)
        guard negotiation == .manual else {
            throw Failure(.invalidArgument, "config.negotiation is for peers that reconnect_peer_create() makes")
        }
    }

    init(_ config: UnsafePointer<reconnect_peer_config_t>?) throws(Failure) {
        self.init()
        guard let config = unsafe config else { return }
        let given = try unsafe readStruct(config, zero: reconnect_peer_config_t(), minimum: 8, "config")
        prefersActive = given.dtls_active != 0
        tag = given.tag
        icePolicy = try ICEPolicy(given.ice_policy)
        guard let style = NegotiationStyle(rawValue: given.negotiation) else {
            throw Failure(.invalidArgument, "config.negotiation is \(given.negotiation)")
        }
        negotiation = style
        guard given.channel_count > 0 else {
            guard given.channel_count == 0 else {
                throw Failure(.invalidArgument, "config.channel_count is out of range")
            }
            return
        }
        guard given.channel_count <= 65535 else {
            throw Failure(.invalidArgument, "config.channel_count is out of range")
        }
        guard let first = unsafe given.channels else { throw Failure(.invalidArgument, "config.channels is NULL") }
        // An array of structs as the host knows them: the first one's size is the distance from each to the next.
        let stride = unsafe Int(first.pointee.struct_size)
        guard stride >= 8, stride <= 4096, stride % 8 == 0 else {
            throw Failure(.invalidArgument, "config.channels[0].struct_size is \(stride)")
        }
        for index in 0..<given.channel_count {
            let element = unsafe UnsafeRawPointer(first).advanced(by: index * stride)
            let channel = try ChannelConfiguration(
                unsafe element.assumingMemoryBound(to: reconnect_channel_config_t.self))
            guard channel.negotiatedID != nil else {
                throw Failure(.invalidArgument, "config.channels[\(index)] is not negotiated")
            }
            channels.append(channel)
        }
    }
}

extension ChannelConfiguration {
    init(_ config: UnsafePointer<reconnect_channel_config_t>?) throws(Failure) {
        self.init()
        guard let config = unsafe config else { return }
        let given = try unsafe readStruct(config, zero: reconnect_channel_config_t(), minimum: 8, "config")
        label = try unsafe text(given.label, limit: 65535, "label") ?? ""
        subprotocol = try unsafe text(given.protocol, limit: 65535, "protocol") ?? ""
        isOrdered = given.unordered == 0
        switch given.reliability {
        case 0: reliability = .reliable
        case 1: reliability = .retransmits(given.reliability_value)
        case 2: reliability = .lifetime(.milliseconds(Int64(given.reliability_value)))
        default: throw Failure(.invalidArgument, "reliability is \(given.reliability)")
        }
        if given.negotiated != 0 {
            guard given.id <= 65534 else {
                throw Failure(.invalidArgument, "id is \(given.id): 0 to 65534 can be used")
            }
            negotiatedID = UInt16(given.id)
        } else if given.id != 0 {
            throw Failure(.invalidArgument, "id is given, but the channel is not negotiated")
        }
        if given.low_water != 0 { lowWater = Int(clamping: given.low_water) }
        tag = given.tag
    }
}

@implementation @_cdecl("reconnect_answer")
public func reconnect_answer(
    _ engine: reconnect_engine_t, _ offer: UnsafePointer<CChar>!, _ size: Int,
    _ config: UnsafePointer<reconnect_peer_config_t>!, _ tag: UInt64, _ peer: UnsafeMutablePointer<reconnect_peer_t>!,
    _ detail: UnsafeMutablePointer<CChar>!, _ detail_capacity: Int
) -> reconnect_status_t {
    unsafe answering(detail, detail_capacity) { () throws(Failure) in
        let found = try ReconnectABI.engine(engine)
        let message = try unsafe bytes(UnsafeRawPointer(offer), size, "offer")
        let output = try unsafe required(peer, "peer")
        let configuration = try unsafe PeerConfiguration(exchanged: config)
        let handle = try unsafe found.answer(message.bytes, configuration: configuration, tag: tag)
        unsafe output.pointee = reconnect_peer_t(id: handle)
    }
}

@implementation @_cdecl("reconnect_peer_create")
public func reconnect_peer_create(
    _ engine: reconnect_engine_t, _ config: UnsafePointer<reconnect_peer_config_t>!,
    _ peer: UnsafeMutablePointer<reconnect_peer_t>!
) -> reconnect_status_t {
    answering { () throws(Failure) in
        let found = try ReconnectABI.engine(engine)
        let output = try unsafe required(peer, "peer")
        let handle = try unsafe found.createPeer(PeerConfiguration(config))
        unsafe output.pointee = reconnect_peer_t(id: handle)
    }
}

@implementation @_cdecl("reconnect_peer_offer")
public func reconnect_peer_offer(_ peer: reconnect_peer_t, _ tag: UInt64) -> reconnect_status_t {
    answering { () throws(Failure) in try ReconnectABI.peer(peer).offer(tag: tag) }
}

@implementation @_cdecl("reconnect_peer_accept")
public func reconnect_peer_accept(
    _ peer: reconnect_peer_t, _ answer: UnsafePointer<CChar>!, _ size: Int, _ tag: UInt64,
    _ detail: UnsafeMutablePointer<CChar>!, _ detail_capacity: Int
) -> reconnect_status_t {
    unsafe answering(detail, detail_capacity) { () throws(Failure) in
        let found = try ReconnectABI.peer(peer)
        try unsafe found.accept(bytes(UnsafeRawPointer(answer), size, "answer").bytes, tag: tag)
    }
}

@implementation @_cdecl("reconnect_peer_add_candidate")
public func reconnect_peer_add_candidate(
    _ peer: reconnect_peer_t, _ candidate: UnsafePointer<CChar>!, _ size: Int, _ detail: UnsafeMutablePointer<CChar>!,
    _ detail_capacity: Int
) -> reconnect_status_t {
    unsafe answering(detail, detail_capacity) { () throws(Failure) in
        let found = try ReconnectABI.peer(peer)
        try unsafe found.addCandidate(bytes(UnsafeRawPointer(candidate), size, "candidate").bytes)
    }
}

@implementation @_cdecl("reconnect_peer_signal")
public func reconnect_peer_signal(
    _ peer: reconnect_peer_t, _ message: UnsafePointer<CChar>!, _ size: Int, _ detail: UnsafeMutablePointer<CChar>!,
    _ detail_capacity: Int
) -> reconnect_status_t {
    unsafe answering(detail, detail_capacity) { () throws(Failure) in
        let found = try ReconnectABI.peer(peer)
        try unsafe found.signal(bytes(UnsafeRawPointer(message), size, "message").bytes)
    }
}

@implementation @_cdecl("reconnect_peer_restart")
public func reconnect_peer_restart(_ peer: reconnect_peer_t) -> reconnect_status_t {
    answering { () throws(Failure) in try ReconnectABI.peer(peer).restart() }
}

@implementation @_cdecl("reconnect_peer_close")
public func reconnect_peer_close(_ peer: reconnect_peer_t) -> reconnect_status_t {
    answering { () throws(Failure) in try ReconnectABI.peer(peer).close() }
}

@implementation @_cdecl("reconnect_peer_query_statistics")
public func reconnect_peer_query_statistics(_ peer: reconnect_peer_t, _ tag: UInt64) -> reconnect_status_t {
    answering { () throws(Failure) in try ReconnectABI.peer(peer).queryStatistics(tag: tag) }
}
