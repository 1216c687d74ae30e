package reconnect

// #include <stdlib.h>
// #include <string.h>
// #include <reconnect.h>
import "C"

import (
	"context"
	"sync"
	"time"
	"unsafe"
)

const (
	// replayBatchSize is how many operations or events go to or come from the library in one call.
	replayBatchSize = 256
	// replayBatchBytes: a batch with this much in it takes no further operation.
	replayBatchBytes = 1 << 20
	// replayRounds is how many batches a goroutine hands in for others before it leaves that to a new one.
	replayRounds = 16
)

// replayOperation is what goes to the library.
type replayOperation struct {
	kind, flags, format, messageKind, lifetime uint32
	room, user, to, position, token            string
	data, key                                  []byte
	generation, negotiation                    uint64
	latency, loss, jitter, bandwidth           float64
}

// replayResult is what comes back.
type replayResult struct {
	err             error
	sequence        uint64
	generation      uint64
	replaced        uint64
	skipped         uint64
	flags           uint32
	verdict         Verdict
	reason          LossReason
	problem         ResumeProblem
	quality         Quality
	messages        []ReplayedMessage
	position, token string
	text            string
	away            time.Duration
	state           UserState
}

// replayCall is one call of a method: one operation, or several.
type replayCall struct {
	done          chan struct{} // gets a value with the last outcome
	results       []replayResult
	single        [1]replayResult
	inOrder       func(*replayResult)
	abandonedJoin *Member // to be dropped if the call was abandoned; nil: no join

	unclaimed int  // outcomes that have not come; under the buffer's mutex
	abandoned bool // nobody waits; under the buffer's mutex
	unsettled int  // under the buffer's takeMutex
}

// replaySlot is an operation that waits for its outcome.
type replaySlot struct {
	call      *replayCall
	index     int
	abandoned bool // when it was claimed
}

var replayCalls = sync.Pool{New: func() any { return &replayCall{done: make(chan struct{}, 1)} }}

func newReplayCall(count int) *replayCall {
	call := replayCalls.Get().(*replayCall)
	call.results = call.single[:]
	if count > 1 {
		call.results = make([]replayResult, count)
	}
	call.unclaimed, call.unsettled = count, count
	return call
}

// free: the call has all its outcomes, and nobody looks at them any more.
func (c *replayCall) free() {
	*c = replayCall{done: c.done}
	replayCalls.Put(c)
}

// settle: the outcome is written. The caller holds takeMutex.
func (s *replaySlot) settle() {
	if s.call.unsettled--; s.call.unsettled == 0 {
		s.call.done <- struct{}{}
	}
}

// replayBatch is operations on their way to the library, all in C memory: what is in it belongs to nobody else.
type replayBatch struct {
	operations []C.reconnect_replay_operation_t
	next       int // of those, the first that the library has not taken
	bytes      int
	block      unsafe.Pointer // for what the operations point to
	used       int
	more       arena // blocks besides
	taken      *C.size_t
	detail     *C.char
}

const (
	replayBlock  = 64 << 10
	replayDetail = 512
)

func newReplayBatch() *replayBatch {
	memory := C.calloc(replayBatchSize, C.size_t(unsafe.Sizeof(C.reconnect_replay_operation_t{})))
	return &replayBatch{
		operations: unsafe.Slice((*C.reconnect_replay_operation_t)(memory), replayBatchSize)[:0],
		block:      C.malloc(replayBlock),
		taken:      (*C.size_t)(C.calloc(1, C.size_t(unsafe.Sizeof(C.size_t(0))))),
		detail:     (*C.char)(C.calloc(1, replayDetail)),
	}
}

func (b *replayBatch) free() {
	b.reset()
	C.free(unsafe.Pointer(&b.operations[:1][0]))
	C.free(b.block)
	C.free(unsafe.Pointer(b.taken))
	C.free(unsafe.Pointer(b.detail))
}

func (b *replayBatch) reset() {
	b.more.free()
	b.more, b.operations = b.more[:0], b.operations[:0]
	b.next, b.bytes, b.used = 0, 0, 0
}

func (b *replayBatch) isFull() bool {
	return len(b.operations) == replayBatchSize || b.bytes >= replayBatchBytes
}

func (b *replayBatch) isSubmitted() bool { return b.next == len(b.operations) }

func (b *replayBatch) copyOf(data unsafe.Pointer, size int) unsafe.Pointer {
	if size == 0 {
		return nil
	}
	b.bytes += size
	var memory unsafe.Pointer
	if size <= replayBlock-b.used {
		memory = unsafe.Add(b.block, b.used)
		b.used += size
	} else {
		memory = C.malloc(C.size_t(size))
		b.more = append(b.more, memory)
	}
	copy(unsafe.Slice((*byte)(memory), size), unsafe.Slice((*byte)(data), size))
	return memory
}

func (b *replayBatch) copyOfText(text string) (*C.char, C.size_t) {
	// A string begins with the pointer to its bytes.
	return (*C.char)(b.copyOf(*(*unsafe.Pointer)(unsafe.Pointer(&text)), len(text))), C.size_t(len(text))
}

func (b *replayBatch) copyOfBytes(bytes []byte) (unsafe.Pointer, C.size_t) {
	return b.copyOf(*(*unsafe.Pointer)(unsafe.Pointer(&bytes)), len(bytes)), C.size_t(len(bytes))
}

func (b *replayBatch) add(operation *replayOperation, tag uint64) {
	b.operations = b.operations[:len(b.operations)+1]
	out := &b.operations[len(b.operations)-1]
	*out = C.reconnect_replay_operation_t{
		_type: C.uint32_t(operation.kind), flags: C.uint32_t(operation.flags), tag: C.uint64_t(tag),
		generation: C.uint64_t(operation.generation), negotiation: C.uint64_t(operation.negotiation),
		format: C.uint32_t(operation.format), kind: C.uint32_t(operation.messageKind),
		lifetime_ms: C.uint32_t(operation.lifetime),
		latency_ms:  C.double(operation.latency), loss_percent: C.double(operation.loss),
		jitter_ms: C.double(operation.jitter), bandwidth_kbps: C.double(operation.bandwidth),
	}
	out.room, out.room_size = b.copyOfText(operation.room)
	out.user, out.user_size = b.copyOfText(operation.user)
	out.to, out.to_size = b.copyOfText(operation.to)
	out.position, out.position_size = b.copyOfText(operation.position)
	out.token, out.token_size = b.copyOfText(operation.token)
	out.data, out.size = b.copyOfBytes(operation.data)
	out.key, out.key_size = b.copyOfBytes(operation.key)
}

// perform does one operation, and waits for its outcome in the call. After an error the call is nobody's any more.
func (b *ReplayBuffer) perform(ctx context.Context, call *replayCall, operation *replayOperation) error {
	b.mutex.Lock()
	if err := b.waitForRoom(ctx); err != nil {
		b.mutex.Unlock()
		return err
	}
	b.add(call, 0, operation)
	return b.submitAndWait(ctx, call)
}

// performMany does several, which `operation` makes one by one. An error of it is the outcome of the one in question.
func (b *ReplayBuffer) performMany(
	ctx context.Context, call *replayCall, count int, operation func(int) (replayOperation, error),
) error {
	b.mutex.Lock()
	for i := 0; i < count; i++ {
		if err := b.waitForRoom(ctx); err != nil {
			call.abandoned = true
			b.mutex.Unlock()
			b.goOn() // nobody else may come to hand in those before
			return err
		}
		each, err := operation(i)
		if err == nil {
			b.add(call, i, &each)
			continue
		}
		b.mutex.Unlock()
		b.takeMutex.Lock()
		b.mutex.Lock()
		call.results[i].err = err
		call.unclaimed--
		slot := replaySlot{call: call}
		slot.settle()
		b.takeMutex.Unlock()
	}
	return b.submitAndWait(ctx, call)
}

// add puts an operation into the batch that is being filled. The caller holds the mutex.
func (b *ReplayBuffer) add(call *replayCall, index int, operation *replayOperation) {
	slot := replaySlot{call: call, index: index}
	var at uint32
	if last := len(b.unused) - 1; last >= 0 {
		at = b.unused[last]
		b.unused = b.unused[:last]
		b.slots[at] = slot
	} else {
		at = uint32(len(b.slots))
		b.slots = append(b.slots, slot)
	}
	b.filling.add(operation, uint64(at)+1)
}

// claim takes the operation with a tag, whose outcome has come. The caller holds the mutex.
func (b *ReplayBuffer) claim(tag uint64) replaySlot {
	if tag == 0 || tag > uint64(len(b.slots)) || b.slots[tag-1].call == nil {
		return replaySlot{} // no tag of this package
	}
	slot := b.slots[tag-1]
	b.slots[tag-1] = replaySlot{}
	b.unused = append(b.unused, uint32(tag-1))
	slot.abandoned = slot.call.abandoned
	slot.call.unclaimed--
	return slot
}

// waitForRoom waits until an operation can be added. The caller holds the mutex, also afterwards.
func (b *ReplayBuffer) waitForRoom(ctx context.Context) error {
	for {
		if b.isClosed {
			return errBufferClosed
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !b.filling.isFull() {
			return nil
		}
		if !b.submitting && !b.blocked {
			b.submitting = true
			b.mutex.Unlock()
			b.submit()
			b.mutex.Lock()
			continue
		}
		if b.isFull == nil {
			b.isFull = make(chan struct{})
		}
		isFull := b.isFull
		b.mutex.Unlock()
		select {
		case <-isFull:
		case <-ctx.Done():
		}
		b.mutex.Lock()
	}
}

// submitAndWait waits for the outcomes of the call. The caller holds the mutex, and no longer afterwards.
func (b *ReplayBuffer) submitAndWait(ctx context.Context, call *replayCall) error {
	submit := !b.submitting && !b.blocked && !b.isClosed
	if submit {
		b.submitting = true
	}
	b.mutex.Unlock()
	if submit {
		b.submit()
	}
	select {
	case <-call.done:
		return nil
	default:
	}
	select {
	case <-call.done:
		return nil
	case <-ctx.Done():
	}
	b.mutex.Lock()
	call.abandoned = call.unclaimed > 0
	abandoned := call.abandoned
	b.mutex.Unlock()
	if abandoned {
		return ctx.Err()
	}
	<-call.done // it is being written
	return nil
}

// submit hands in operations, also those that others add meanwhile, until there are none. The caller has set
// `submitting`.
func (b *ReplayBuffer) submit() {
	for round := 0; ; round++ {
		if round == replayRounds {
			go b.submit()
			return
		}
		b.mutex.Lock()
		if b.submitted.isSubmitted() {
			b.submitted.reset()
			b.submitted, b.filling = b.filling, b.submitted
			if b.isFull != nil {
				close(b.isFull)
				b.isFull = nil
			}
		}
		if b.isClosed || b.submitted.isSubmitted() {
			b.stopSubmitting()
			b.mutex.Unlock()
			return
		}
		before := b.taken
		b.mutex.Unlock()

		status := b.handIn()
		b.takeAll()
		if status == C.RECONNECT_WOULD_BLOCK {
			b.mutex.Lock()
			if b.taken == before { // whoever takes events next goes on
				b.blocked = true
				b.stopSubmitting()
				b.mutex.Unlock()
				return
			}
			b.mutex.Unlock()
		}
	}
}

func (b *ReplayBuffer) stopSubmitting() {
	b.submitting = false
	if b.isClosed {
		b.idle.Broadcast()
	}
}

// goOn submits what the library would not take earlier.
func (b *ReplayBuffer) goOn() {
	b.mutex.Lock()
	submit := !b.submitting && !b.blocked && !b.isClosed &&
		(!b.submitted.isSubmitted() || len(b.filling.operations) > 0)
	if submit {
		b.submitting = true
	}
	b.mutex.Unlock()
	if submit {
		b.submit()
	}
}

// handIn gives the submitted batch to the library, from the first operation that it has not taken.
func (b *ReplayBuffer) handIn() C.reconnect_status_t {
	batch := b.submitted
	*batch.taken = 0
	*batch.detail = 0
	first := &batch.operations[batch.next] // a variable: cgo makes an object of a slice in an argument
	status := C.reconnect_replay_submit(
		b.handle, first, C.size_t(unsafe.Sizeof(*first)),
		C.size_t(len(batch.operations)-batch.next), batch.taken, batch.detail, replayDetail)
	batch.next += int(*batch.taken)
	switch status {
	case C.RECONNECT_OK, C.RECONNECT_WOULD_BLOCK:
	case C.RECONNECT_INVALID_ARGUMENT, C.RECONNECT_TOO_LARGE:
		b.refuse(status, 1)
	default:
		b.refuse(status, len(batch.operations)-batch.next)
	}
	return status
}

// refuse ends the next operations of the submitted batch, which the library did not take.
func (b *ReplayBuffer) refuse(status C.reconnect_status_t, count int) {
	batch := b.submitted
	err := failure(status, C.GoString(batch.detail))
	b.takeMutex.Lock()
	defer b.takeMutex.Unlock()
	for ; count > 0 && !batch.isSubmitted(); count-- {
		b.mutex.Lock()
		slot := b.claim(uint64(batch.operations[batch.next].tag))
		b.mutex.Unlock()
		batch.next++
		if slot.call != nil {
			slot.call.results[slot.index].err = err
			slot.settle()
		}
	}
}
