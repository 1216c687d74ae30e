import Engine
import Replay
import Wire

/// What hosts hand in, as spans; absent is empty.
extension RawSpan {
    /// A room's name, for a store that has not heard of it.
    func checkRoom() throws(Failure) {
        do throws(NameError) { try NameRules.check(room: self) } catch { throw Failure(error, "room") }
    }

    func checkUser(_ member: StaticString) throws(Failure) {
        do throws(NameError) { try NameRules.check(user: self) } catch { throw Failure(error, member) }
    }

    func roomName() throws(Failure) -> RoomName {
        do throws(NameError) { return try RoomName(copied()) } catch { throw Failure(error, "room") }
    }

    func userName(_ member: StaticString) throws(Failure) -> UserName {
        do throws(NameError) { return try UserName(copied()) } catch { throw Failure(error, member) }
    }
}

extension Failure {
    init(_ error: NameError, _ member: StaticString) {
        let reason =
            switch error {
            case .empty: "missing"
            case .tooLong: "longer than \(NameRules.maximumLength) bytes"
            case .notUTF8: "not UTF-8"
            case .controlCharacter: "a name with a control character"
            case .brace: "a name with a brace"
            }
        self.init(.invalidArgument, "\(member) is \(reason)")
    }
}
