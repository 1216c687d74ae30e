package reconnect

// #include <stdlib.h>
// #include <reconnect.h>
import "C"

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// ReplayBuffer keeps what was said in rooms, so that a client that was away gets what it missed, in order, and is told
// Recovered only if that is everything. It carries no messages to clients: the program does, over whatever it has. It
// needs no engine.
//
// What a program does:
//
//   - A client comes: Join, with the position and token that the client presents, if it has any. Position and token of
//     the outcome go to the client.
//   - A client sends: Publish.
//   - A room has clients: Subscribe, before the first Join. Every message of the room comes as a ReplayMessageEvent,
//     whichever server published it, and goes to each client that it is for and whose last sequence is lower.
//   - A client's connection ends: Drop, and it may come back; Leave, and it will not.
//
// Every method may be called from every goroutine at any time. Operations of one room take effect in the order in which
// they were handed in; those of several goroutines go to the library together, in one call. With rooms in memory the
// outcome is there within the call, and no other goroutine is needed for it.
//
// A method whose context ends returns the context's error at once. What it asked for may have been done, or may yet be;
// nobody else's outcome is touched.
type ReplayBuffer struct {
	handle     C.reconnect_replay_t
	descriptor *os.File
	wait       syscall.RawConn
	events     chan Event
	closing    chan struct{} // closed first
	finished   chan struct{} // closed last, by the reader
	closeOnce  sync.Once
	closeError error
	background sync.WaitGroup // goroutines besides the reader

	mutex      sync.Mutex
	slots      []replaySlot  // operations without an outcome; a tag is an index plus 1
	unused     []uint32      // indexes of slots
	filling    *replayBatch  // takes operations
	submitted  *replayBatch  // is handed in
	isFull     chan struct{} // closed when `filling` is replaced; nil: nobody waits for that
	submitting bool          // a goroutine is at it
	blocked    bool          // the library takes no more until outcomes were taken
	taken      uint64        // batches of events so far
	isClosed   bool
	idle       sync.Cond // submitting has become false

	takeMutex sync.Mutex // events are taken and given out by one goroutine at a time
	batch     []C.reconnect_replay_event_t
	count     *C.size_t
	claimed   []replaySlot

	lateMutex sync.Mutex
	late      []Event         // found the channel full
	gaps      map[string]bool // rooms of gaps among them
}

// NewReplayBuffer makes a replay buffer. config may be nil for all defaults. A Redis that is away is not an error.
//
// Fails with ErrInvalidArgument (also for a store's address), ErrStorage (a SQLite file that cannot be used),
// ErrNoDescriptors, ErrLimit, ErrSystem. Close ends the buffer; one that is not closed lives as long as the process.
func NewReplayBuffer(config *ReplayConfig) (*ReplayBuffer, error) {
	return newReplayBuffer(config, false)
}

// NewReplayBufferFromEnv makes a replay buffer as NewReplayBuffer, with REDIS_URL from the environment where config
// names no Store.
func NewReplayBufferFromEnv(config *ReplayConfig) (*ReplayBuffer, error) {
	return newReplayBuffer(config, true)
}

func newReplayBuffer(config *ReplayConfig, fromEnvironment bool) (*ReplayBuffer, error) {
	if version := uint32(C.reconnect_version()); version>>16 != abiMajor || version&0xffff < 2 {
		return nil, &Error{Status: StatusInvalidArgument, Detail: fmt.Sprintf(
			"the library's ABI has version %d.%d, replay buffers need %d.2", version>>16, version&0xffff, abiMajor)}
	}
	if config == nil {
		config = &ReplayConfig{}
	}
	capacity := config.EventCapacity
	switch {
	case capacity < 0:
		return nil, &Error{Status: StatusInvalidArgument, Detail: "EventCapacity is negative"}
	case capacity == 0:
		capacity = 1024
	}
	var memory arena
	defer memory.free()
	var native C.reconnect_replay_config_t
	if err := config.fill(&native, &memory); err != nil {
		return nil, err
	}
	b := &ReplayBuffer{
		events:   make(chan Event, capacity),
		closing:  make(chan struct{}),
		finished: make(chan struct{}),
		gaps:     make(map[string]bool),
	}
	b.idle.L = &b.mutex
	var detail detailText
	var status C.reconnect_status_t
	if fromEnvironment {
		status = C.reconnect_replay_create_from_env(&native, &b.handle, &detail[0], C.size_t(len(detail)))
	} else {
		status = C.reconnect_replay_create(&native, &b.handle, &detail[0], C.size_t(len(detail)))
	}
	if status != C.RECONNECT_OK {
		return nil, failure(status, detail.String())
	}
	var original C.int
	if status := C.reconnect_replay_event_fd(b.handle, &original); status != C.RECONNECT_OK {
		C.reconnect_replay_destroy(b.handle)
		return nil, failure(status, "")
	}
	var err error
	if b.descriptor, b.wait, err = pollable(original); err != nil {
		C.reconnect_replay_destroy(b.handle)
		return nil, err
	}
	b.filling, b.submitted = newReplayBatch(), newReplayBatch()
	events := C.calloc(replayBatchSize, C.size_t(unsafe.Sizeof(C.reconnect_replay_event_t{})))
	b.batch = unsafe.Slice((*C.reconnect_replay_event_t)(events), replayBatchSize)
	b.count = (*C.size_t)(C.calloc(1, C.size_t(unsafe.Sizeof(*b.count))))
	go b.read()
	return b, nil
}

// Close ends the buffer and its connections to the store; what is in a store stays there. Methods under way return
// ErrInvalidHandle, and what they asked for may have been done. The channel of events is closed; events not yet received
// from it stay in it. A second Close does nothing. May be called from every goroutine, but not from an InOrder.
func (b *ReplayBuffer) Close() error {
	b.closeOnce.Do(func() {
		close(b.closing)
		b.descriptor.Close() // wakes the reader
		<-b.finished
		b.closeError = failure(C.reconnect_replay_destroy(b.handle), "")
	})
	return b.closeError
}

// Events is the channel on which everything that nobody asked for arrives: ReplayMessageEvent, ReplayGapEvent,
// ReplayStoreEvent, ReplayReturnedEvent, LogEvent. Close closes it. Methods may be called by who reads it.
func (b *ReplayBuffer) Events() <-chan Event { return b.events }

// read takes events from the library until the buffer closes. See Engine.take for how it waits.
func (b *ReplayBuffer) read() {
	for {
		var status C.reconnect_status_t
		err := b.wait.Read(func(uintptr) bool {
			var count int
			count, status = b.take()
			return status != C.RECONNECT_OK || count > 0
		})
		if err != nil || status != C.RECONNECT_OK {
			break
		}
		b.goOn()
	}
	b.finish()
}

// finish ends everything but the library's part.
func (b *ReplayBuffer) finish() {
	b.mutex.Lock()
	b.isClosed = true
	if b.isFull != nil {
		close(b.isFull)
		b.isFull = nil
	}
	for b.submitting {
		b.idle.Wait()
	}
	b.mutex.Unlock()
	b.takeMutex.Lock() // from now on nobody takes events: nobody submits, and this is the reader
	b.mutex.Lock()
	b.claimed = b.claimed[:0]
	for i := range b.slots {
		if b.slots[i].call != nil {
			b.claimed = append(b.claimed, b.claim(uint64(i)+1))
		}
	}
	b.mutex.Unlock()
	for _, slot := range b.claimed {
		slot.call.results[slot.index].err = errBufferClosed
		slot.settle()
	}
	b.filling.free()
	b.submitted.free()
	C.free(unsafe.Pointer(&b.batch[0]))
	C.free(unsafe.Pointer(b.count))
	b.takeMutex.Unlock()
	b.background.Wait()
	close(b.events)
	close(b.finished)
}

var errBufferClosed error = &Error{Status: StatusInvalidHandle, Detail: "the replay buffer was closed"}

// pollable is a copy of a descriptor of the library for Go's network poller.
func pollable(original C.int) (*os.File, syscall.RawConn, error) {
	// The poller takes only descriptors that are its own and do not block.
	copied, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(original), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		status := C.reconnect_status_t(C.RECONNECT_SYSTEM)
		if errno == syscall.EMFILE {
			status = C.RECONNECT_NO_DESCRIPTORS
		}
		return nil, nil, failure(status, "duplicating the event descriptor: "+errno.Error())
	}
	if err := syscall.SetNonblock(int(copied), true); err != nil {
		syscall.Close(int(copied))
		return nil, nil, failure(C.RECONNECT_SYSTEM, "event descriptor: "+err.Error())
	}
	file := os.NewFile(copied, "reconnect events")
	connection, err := file.SyscallConn()
	if err == nil {
		// Fails where the descriptor is not in the poller: a thread would have to wait for it.
		err = file.SetReadDeadline(time.Time{})
	}
	if err != nil {
		file.Close()
		return nil, nil, failure(C.RECONNECT_SYSTEM, "event descriptor: "+err.Error())
	}
	return file, connection, nil
}
