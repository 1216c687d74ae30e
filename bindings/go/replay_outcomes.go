package reconnect

// #include <reconnect.h>
import "C"

import (
	"context"
	"time"
	"unsafe"
)

// takeAll takes the events that wait, without end only if they come without end.
func (b *ReplayBuffer) takeAll() {
	for round := 0; round < replayRounds; round++ {
		if count, _ := b.take(); count < replayBatchSize {
			return
		}
	}
}

// take takes a batch of events and gives them out, in order. It never waits for anything but another one that takes.
func (b *ReplayBuffer) take() (int, C.reconnect_status_t) {
	b.takeMutex.Lock()
	defer b.takeMutex.Unlock()
	*b.count = 0
	first := &b.batch[0]
	status := C.reconnect_replay_poll(b.handle, first, C.size_t(unsafe.Sizeof(*first)), replayBatchSize, 0, b.count)
	count := int(*b.count)
	if status != C.RECONNECT_OK || count == 0 {
		return 0, status
	}
	events := b.batch[:count]
	b.claimed = b.claimed[:0]
	b.mutex.Lock()
	b.taken++
	b.blocked = false
	for i := range events {
		var slot replaySlot
		if events[i]._type < C.RECONNECT_REPLAY_EVENT_MESSAGE {
			slot = b.claim(uint64(events[i].tag))
		}
		b.claimed = append(b.claimed, slot)
	}
	b.mutex.Unlock()
	for i := range events {
		if slot := &b.claimed[i]; slot.call != nil {
			b.outcome(slot, &events[i])
		} else if events[i]._type >= C.RECONNECT_REPLAY_EVENT_MESSAGE {
			b.live(&events[i])
		}
		b.claimed[i] = replaySlot{}
	}
	C.reconnect_replay_release(b.handle, events[0].batch)
	return count, status
}

// outcome writes the outcome of an operation, and wakes who waits for it if it was the last one of its call.
func (b *ReplayBuffer) outcome(slot *replaySlot, event *C.reconnect_replay_event_t) {
	call := slot.call
	if slot.abandoned {
		if join := call.abandonedJoin; join != nil && event.status == C.RECONNECT_OK {
			b.background.Add(1)
			go b.undo(Member{Room: join.Room, User: join.User, Generation: uint64(event.generation)})
		}
		return
	}
	result := &call.results[slot.index]
	result.fill(event)
	if call.inOrder != nil && result.err == nil {
		call.inOrder(result)
	}
	slot.settle()
}

// undo drops a connection that nobody waited for.
func (b *ReplayBuffer) undo(member Member) {
	defer b.background.Done()
	b.Drop(context.Background(), member)
}

func (r *replayResult) fill(event *C.reconnect_replay_event_t) {
	if event.status != C.RECONNECT_OK {
		r.err = &Error{
			Status: Status(event.status), Detail: text(event.data, event.size),
			RetryAfter: time.Duration(event.retry_after_ms) * time.Millisecond,
		}
		return
	}
	r.sequence = uint64(event.sequence)
	r.generation = uint64(event.generation)
	r.replaced = uint64(event.replaced)
	r.skipped = uint64(event.skipped)
	r.flags = uint32(event.flags)
	r.verdict = Verdict(event.verdict)
	r.reason = LossReason(event.reason)
	r.problem = ResumeProblem(event.problem)
	r.quality = Quality(event.quality)
	r.position = characterText(event.position, event.position_size)
	r.token = characterText(event.token, event.token_size)
	r.text = text(event.data, event.size)
	r.away = time.Duration(event.disconnect_ms) * time.Millisecond
	if event.message_count > 0 {
		r.messages = replayedMessages(unsafe.Slice(event.messages, int(event.message_count)))
	}
	if event.state != nil {
		r.state = userState(event.state)
	}
}

// replayedMessages copies messages with one piece of memory for all payloads; nothing can be appended to one of them
// in place.
func replayedMessages(natives []C.reconnect_replay_message_t) []ReplayedMessage {
	size := 0
	for i := range natives {
		size += int(natives[i].size)
	}
	memory := make([]byte, size)
	messages := make([]ReplayedMessage, len(natives))
	used := 0
	for i := range natives {
		native := &natives[i]
		end := used + int(native.size)
		copy(memory[used:end], unsafe.Slice((*byte)(native.data), int(native.size)))
		messages[i] = ReplayedMessage{
			Sequence: uint64(native.sequence), Data: memory[used:end:end],
			Binary: native.format == C.RECONNECT_BINARY, Kind: MessageKind(native.kind),
			Negotiation: uint64(native.negotiation),
		}
		used = end
	}
	return messages
}

func userState(native *C.reconnect_replay_state_t) UserState {
	return UserState{
		LastSequence: uint64(native.last_sequence), LastSeen: time.UnixMilli(int64(native.last_seen_ms)),
		Connected: native.connected != 0, Quality: Quality(native.quality), Connections: uint32(native.connections),
		Away: time.Duration(native.disconnect_ms) * time.Millisecond,
	}
}

func (r *replayResult) published() Published {
	return Published{
		Sequence: r.sequence, Position: Position(r.position), Duplicate: r.flags&C.RECONNECT_REPLAY_DUPLICATE != 0,
		Degraded: r.flags&C.RECONNECT_REPLAY_DEGRADED != 0, Err: r.err,
	}
}

func (r *replayResult) recovery() *Recovery {
	return &Recovery{
		Verdict: r.verdict, Reason: r.reason, Problem: r.problem, Messages: r.messages, Skipped: r.skipped,
		Sequence: r.sequence, Position: Position(r.position), Degraded: r.flags&C.RECONNECT_REPLAY_DEGRADED != 0,
	}
}

func (r *replayResult) joined(room, user string) *Joined {
	return &Joined{
		Recovery: *r.recovery(), Member: Member{Room: room, User: user, Generation: r.generation}, Token: r.token,
		Reconnection: r.flags&C.RECONNECT_REPLAY_RECONNECTION != 0, Away: r.away, Replaced: r.replaced,
	}
}
