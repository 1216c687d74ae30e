// Package reconnect is libreconnect for Go: WebRTC data channels that come back fast after a reload.
//
// An [Engine] owns one UDP port, one certificate and one thread. A [Peer] is one WebRTC connection on that
// port; a [Channel] is one data channel of a peer. Calls hand work to the engine's thread and return at once;
// whatever happens afterwards is an [Event] on the Go channel that [Engine.Events] returns.
//
// A [ReplayBuffer] keeps what was said in rooms, for clients that come back. It needs no engine.
//
// # Goroutines
//
// Every function and method may be called from every goroutine at any time. One goroutine of the engine takes
// events from the library; it waits in Go's network poller, so no operating system thread is parked for it.
//
// The channel of events is bounded. While it is full the engine's goroutine takes nothing more from the
// library, which then stops reading from the peers: nothing is dropped. So read events in a loop, and do not
// call from that loop what waits for an event itself: [Engine.Answer], [Peer.Offer], [Peer.Accept] and
// [Peer.Statistics] belong into other goroutines, an HTTP handler for example.
//
// # Memory
//
// The payload of an event is copied once, to memory of Go; whoever receives the event owns it. What is given
// to Send is copied once, to memory of the library, before Send returns.
//
// # Errors
//
// A failed call returns an [*Error] with the library's status and a sentence. Compare with [errors.Is]:
//
//	if errors.Is(err, reconnect.ErrWouldBlock) { ... }
//
// The package is found with pkg-config under the name reconnect.
package reconnect
