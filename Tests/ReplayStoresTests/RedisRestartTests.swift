import Foundation
import Replay
import Storage
import Testing
import Wire

@testable import ReplayStores

/// A server that comes back, or another one in its place, with less than it had acknowledged.
@Suite(.serialized) struct RoomsOnAServerThatWentBack {
    /// From a snapshot: the numbers start again in the middle.
    @Test func proveNothingAfterARestart() throws {
        let server = try RedisServer(["--dbfilename", "dump.rdb"])
        let scene = try RedisScene(server)
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        for index in 1...3 { try scene.publish("\(index)", from: ann) }
        try scene.raw("SAVE")
        for index in 4...5 { try scene.publish("\(index)", from: ann) }
        server.kill()
        try scene.waitUntilDown()
        try server.start()
        try scene.waitUntilUp()
        // It has three messages, and nobody may be told that those are all.
        let (recovery, batch) = try scene.recover(bob, at: Position(epoch: bob.position.epoch, sequence: 3))
        #expect(recovery.verdict == .lost(.epoch) && batch.isEmpty)
        #expect(recovery.position.epoch != bob.position.epoch && recovery.position.sequence == 0)
        // Members are still there, and go on.
        #expect(try scene.publish("new", from: ann).position == Position(epoch: recovery.position.epoch, sequence: 1))
        #expect(try scene.recovered(bob, at: recovery.position) == (.recovered, ["new"]))
    }

    /// Of a replica that did not have everything yet.
    @Test func proveNothingAfterAFailover() throws {
        let first = try RedisServer()
        let second = try RedisServer(["--replicaof", "127.0.0.1", String(first.port)])
        let scene = try RedisScene(first)
        let ann = try scene.join("ann")
        let bob = try scene.join("bob")
        for index in 1...3 { try scene.publish("\(index)", from: ann) }
        #expect(try scene.raw("WAIT", "1", "20000") == .success(.integer(1)))
        let other = Connected(try second.address())
        defer { other.client.close() }
        try other.waitUntilUp()
        // From here on nothing reaches it any more.
        _ = try other.reply("REPLICAOF", "NO", "ONE").get()
        for index in 4...5 { try scene.publish("\(index)", from: ann) }
        let after = try RedisScene(second)
        let (recovery, batch) = try after.recover(bob, at: Position(epoch: bob.position.epoch, sequence: 3))
        #expect(recovery.verdict == .lost(.epoch) && batch.isEmpty)
        #expect(try after.publish("new", from: ann).position.sequence == 1)
        // Who was connected to the old one and comes now finds the same.
        let late = try RedisScene(second)
        #expect(try late.recovered(bob, at: recovery.position) == (.recovered, ["new"]))
    }
}
