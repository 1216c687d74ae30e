package reconnect

// #include <reconnect.h>
import "C"

import "unsafe"

// StoreState is how a replay buffer stands with its store.
type StoreState uint32

const (
	// StoreAway: left alone; rooms are numbered here.
	StoreAway    StoreState = C.RECONNECT_STORE_AWAY
	StorePresent StoreState = C.RECONNECT_STORE_PRESENT
	// StoreProbed: one operation tries it.
	StoreProbed StoreState = C.RECONNECT_STORE_PROBED
)

// String is "away", "present" or "probed".
func (s StoreState) String() string { return nameOf(uint32(s), "away", "present", "probed") }

// ReplayMessageEvent is a live message of a room that was subscribed, whichever server published it. It goes to the
// user To, or, where that is empty, to everybody but User: to each client whose last sequence is lower than Sequence.
type ReplayMessageEvent struct {
	Room string
	// User is the sender; empty: a server.
	User, To string
	// Data is the message; it belongs to the receiver of the event. It may be empty.
	Data        []byte
	Binary      bool
	Kind        MessageKind
	Negotiation uint64
	Sequence    uint64
	// Position is where a client is that has this message and all before.
	Position Position
}

// ReplayGapEvent: live messages of a room may be missing. Each of its clients is to Recover from its last position,
// unless its Join or Recover is under way.
type ReplayGapEvent struct {
	Room string
	// Reason is LostLimit if the program did not read its events quickly enough.
	Reason LossReason
}

// ReplayStoreEvent: the store has come or gone.
type ReplayStoreEvent struct {
	State StoreState
	// Detail is a sentence.
	Detail string
}

// ReplayReturnedEvent: a connection that began while the store was away was taken over by it.
type ReplayReturnedEvent struct {
	// Member is the connection from now on.
	Member Member
	// Replaced is its generation so far.
	Replaced uint64
	Token    string
	Position Position
	// Verdict and Reason are to be told to the client.
	Verdict Verdict
	Reason  LossReason
	// Err is ErrStale if the store did not take it, and it must join again; otherwise nil.
	Err error
}

func (ReplayMessageEvent) event()  {}
func (ReplayGapEvent) event()      {}
func (ReplayStoreEvent) event()    {}
func (ReplayReturnedEvent) event() {}

// mostLate is how many events wait beside a full channel of events, beyond one for each room that has a gap.
const mostLate = 1 << 16

// live turns an event of the library that is no outcome into what the program sees of it.
func (b *ReplayBuffer) live(event *C.reconnect_replay_event_t) {
	switch event._type {
	case C.RECONNECT_REPLAY_EVENT_MESSAGE:
		b.push(replayMessage(event))
	case C.RECONNECT_REPLAY_EVENT_GAP:
		b.push(ReplayGapEvent{Room: characterText(event.room, event.room_size), Reason: LossReason(event.reason)})
	case C.RECONNECT_REPLAY_EVENT_STORE:
		b.push(ReplayStoreEvent{State: StoreState(event.number), Detail: text(event.data, event.size)})
	case C.RECONNECT_REPLAY_EVENT_RETURNED:
		b.push(ReplayReturnedEvent{
			Member: Member{
				Room: characterText(event.room, event.room_size), User: characterText(event.user, event.user_size),
				Generation: uint64(event.generation),
			},
			Replaced: uint64(event.replaced), Token: characterText(event.token, event.token_size),
			Position: Position(characterText(event.position, event.position_size)),
			Verdict:  Verdict(event.verdict), Reason: LossReason(event.reason), Err: failure(event.status, ""),
		})
	case C.RECONNECT_REPLAY_EVENT_LOG:
		b.push(LogEvent{Level: LogLevel(event.number), Line: text(event.data, event.size)})
	}
	// What this package does not know is ignored.
}

// push never waits: those whose outcomes are behind the event do not wait for the reader of the events. What does not
// fit becomes a gap, which is told as soon as there is room; until then every message becomes one.
func (b *ReplayBuffer) push(event Event) {
	b.lateMutex.Lock()
	defer b.lateMutex.Unlock()
	if len(b.late) == 0 {
		select {
		case b.events <- event:
			return
		default:
		}
	}
	switch each := event.(type) {
	case ReplayMessageEvent:
		event = ReplayGapEvent{Room: each.Room, Reason: LostLimit}
	case LogEvent:
		return
	}
	if gap, ok := event.(ReplayGapEvent); ok {
		if b.gaps[gap.Room] {
			return
		}
		b.gaps[gap.Room] = true
	} else if len(b.late) >= mostLate {
		return
	}
	b.late = append(b.late, event)
	if len(b.late) == 1 {
		b.background.Add(1)
		go b.deliverLate()
	}
}

// deliverLate brings the events that found the channel full.
func (b *ReplayBuffer) deliverLate() {
	defer b.background.Done()
	b.lateMutex.Lock()
	defer b.lateMutex.Unlock()
	for len(b.late) > 0 {
		event := b.late[0]
		if gap, ok := event.(ReplayGapEvent); ok {
			// Before the program can see it: a message that comes now is behind the gap.
			delete(b.gaps, gap.Room)
		}
		b.lateMutex.Unlock()
		select {
		case b.events <- event:
		case <-b.closing:
			b.lateMutex.Lock()
			return
		}
		b.lateMutex.Lock()
		b.late[0] = nil
		b.late = b.late[1:]
	}
	b.late = nil
}

// replayMessage copies a message and its names with one piece of memory. The texts are never written again; the
// program may write to Data, which begins behind them.
func replayMessage(event *C.reconnect_replay_event_t) ReplayMessageEvent {
	names := int(event.room_size + event.user_size + event.to_size + event.position_size)
	memory := make([]byte, names+int(event.size))
	used := 0
	take := func(data unsafe.Pointer, size C.size_t) []byte {
		part := memory[used : used+int(size) : used+int(size)]
		copy(part, unsafe.Slice((*byte)(data), int(size)))
		used += int(size)
		return part
	}
	name := func(data *C.char, size C.size_t) string {
		part := take(unsafe.Pointer(data), size)
		return *(*string)(unsafe.Pointer(&part)) // a slice begins as a string does
	}
	return ReplayMessageEvent{
		Room:        name(event.room, event.room_size),
		User:        name(event.user, event.user_size),
		To:          name(event.to, event.to_size),
		Position:    Position(name(event.position, event.position_size)),
		Data:        take(event.data, event.size),
		Binary:      event.format == C.RECONNECT_BINARY,
		Kind:        MessageKind(event.kind),
		Negotiation: uint64(event.negotiation),
		Sequence:    uint64(event.sequence),
	}
}

func characterText(data *C.char, size C.size_t) string { return text(unsafe.Pointer(data), size) }
