import TURN
import Wire

/// What a host or the engine is to hear of relays.
enum RelayEvent: Equatable {
    /// ``RelayGroup/candidates`` are others.
    case candidatesChanged
    /// A server gave an allocation; `duration`: since it was asked.
    case allocated(url: String, addresses: [SocketAddress], duration: Duration)
    /// A server gives none, or none any more; the sentence names it and says what to do. It is tried again by itself
    /// where that makes sense.
    case failed(url: String, Status, String)
    /// The credentials for this server end then, or it took them no more.
    case credentialsNeeded(url: String, by: Instant)
    /// Nothing comes through this relayed address any more.
    case lost(relayed: SocketAddress)
}

/// What a server was used for, over all ports; for metrics.
struct RelayStatistics: Equatable {
    var url: String
    var transport: RelayTransport
    /// Those that are held now.
    var held = 0
    var allocations: UInt64 = 0
    var failures: UInt64 = 0
    /// Peers' datagrams and their bytes, without what TURN adds.
    var sent: UInt64 = 0
    var sentBytes: UInt64 = 0
    var received: UInt64 = 0
    var receivedBytes: UInt64 = 0
    /// What came from the server and was no use, and what could not be sent.
    var dropped: UInt64 = 0
    /// The best that is known.
    var roundTrip: Duration?
}

/// Which server: another transport is another one.
struct RelayServer: Hashable, Sendable {
    var host: String
    var port: UInt16
    var transport: RelayTransport

    init(_ server: TURNServer) {
        host = server.host
        port = server.port
        transport = server.transport
    }
}

/// One address of a server.
struct RelayEndpoint: Hashable, Sendable {
    var server: RelayServer
    var address: SocketAddress
}

/// Why there is no relay, before the protocol or in it.
enum RelayFailure {
    case turn(RelayClient.Failure)
    /// The name has no address.
    case unknownName
    /// There is no connection, or no TLS on it.
    case stream(Failure)
    /// Nothing was heard of the server any more.
    case silent

    /// What to tell of it.
    func describe(_ server: TURNServer) -> (status: Status, sentence: String) {
        let name = "\(server.host):\(server.port)"
        switch self {
        case .unknownName:
            return (.turnUnreachable, "the name \(server.host) has no address: check the URL and the name server")
        case .stream(let failure):
            let advice =
                failure.status == .turnTLSFailed
                ? "check turn_ca_path and the name in the URL" : "is it up, and does a firewall let it through?"
            return (failure.status, "TURN server \(name): \(failure.detail); \(advice)")
        case .silent:
            return (.turnLost, "TURN server \(name) does not answer any more: it is tried again, and others are")
        case .turn(let failure): return failure.describe(name)
        }
    }

    /// How long the server is left alone, doubled with each failure in a row up to the limit. `life`: how long it had
    /// held the allocation, if it did.
    func pause(after life: Duration?) -> (first: Duration, limit: Duration) {
        let soon = (first: Duration.seconds(1), limit: Duration.seconds(60))
        switch self {
        case .unknownName, .silent: return soon
        case .stream(let failure): return failure.status == .turnTLSFailed ? (.seconds(10), .seconds(600)) : soon
        case .turn(let failure):
            switch failure {
            case .timeout: return soon
            case .mismatch: return (.milliseconds(500), .seconds(60))
            // At once, if it was not only a moment.
            case .allocationLost, .connectionClosed:
                return life.map { $0 >= .seconds(10) } ?? false ? (.zero, soon.limit) : soon
            default: return (failure.advice.sameServerAfter ?? .seconds(600), .seconds(600))
            }
        }
    }
}

extension RelayClient.Failure {
    fileprivate func describe(_ name: String) -> (status: Status, sentence: String) {
        switch self {
        case .timeout:
            (.turnUnreachable, "TURN server \(name) does not answer: is it up, and does a firewall let it through?")
        case .wrongCredentials:
            (.turnUnauthorized, "TURN server \(name) does not take the credentials: give others")
        case .challenges: (.turnUnauthorized, "TURN server \(name) asks for credentials again and again")
        case .forbidden: (.turnForbidden, "TURN server \(name) forbids this user or this address (403)")
        case .unknownAttributes: (.turnRefused, "TURN server \(name) does not know what it is asked for (420)")
        case .mismatch:
            (.turnRefused, "TURN server \(name) holds another allocation for this port (437): tried again when it ends")
        case .unsupportedFamily: (.turnRefused, "TURN server \(name) has no address of that family (440)")
        case .unsupportedTransport: (.turnRefused, "TURN server \(name) does not relay UDP (442)")
        case .quotaReached: (.turnQuota, "TURN server \(name): the user has too many allocations (486)")
        case .insufficientCapacity: (.turnQuota, "TURN server \(name) has no room for more allocations (508)")
        case .badRedirection: (.turnMalformed, "TURN server \(name) sends its clients in a circle, or nowhere (300)")
        case .allocationLost: (.turnLost, "TURN server \(name) lost the allocation: another one is asked for")
        case .connectionClosed: (.turnLost, "TURN server \(name) closed the connection: another one is opened")
        case .malformedStream, .malformedAnswer: (.turnMalformed, "what \(name) answers is not TURN: check the URL")
        case .refused(let code): (.turnRefused, "TURN server \(name) refuses with error \(code)")
        }
    }
}
