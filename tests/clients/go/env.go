package main

import (
	"context"
	"fmt"
	"runtime/debug"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// env is one run of one case: fresh names, clients that are shut down at its end.
type env struct {
	namesrv string
	stock   bool
	name    string
	suffix  string
	mu      sync.Mutex
	closers []func()
	notes   []string
	prod    rocketmq.Producer
}

var instances int64

func (e *env) run(c testCase) (text string, good bool) {
	seconds := c.seconds
	if seconds == 0 {
		seconds = 60
	}
	done := make(chan string, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				if f, is := r.(failure); is {
					done <- string(f)
				} else {
					done <- fmt.Sprintf("panic: %v %s", r, debug.Stack())
				}
				return
			}
			done <- ""
		}()
		c.body(e)
	}()
	select {
	case text = <-done:
		good = text == ""
	case <-time.After(time.Duration(seconds) * time.Second):
		text = fmt.Sprintf("not done after %d s", seconds)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.notes) > 0 {
		text = strings.TrimSpace(text + " " + strings.Join(e.notes, ", "))
	}
	return text, good
}

func (e *env) note(format string, args ...interface{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.notes = append(e.notes, fmt.Sprintf(format, args...))
}

func (e *env) onClose(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closers = append(e.closers, f)
}

func (e *env) closeAll() {
	e.mu.Lock()
	l := e.closers
	e.closers = nil
	e.mu.Unlock()
	done := make(chan struct{})
	go func() {
		for i := len(l) - 1; i >= 0; i-- {
			l[i]()
		}
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
	}
}

func (e *env) fresh(base string) string { return "go-" + e.name + "-" + base + "-" + e.suffix }

func (e *env) instance() string {
	return fmt.Sprintf("%s-%s-%d", e.name, e.suffix, atomic.AddInt64(&instances, 1))
}

func (e *env) resolver() primitive.NsResolver {
	return primitive.NewPassthroughResolver(strings.Split(e.namesrv, ";"))
}

func (e *env) newProducer(opts ...producer.Option) rocketmq.Producer {
	all := append([]producer.Option{producer.WithNsResolver(e.resolver()), producer.WithInstanceName(e.instance()),
		producer.WithGroupName(e.fresh("PG")), producer.WithSendMsgTimeout(10 * time.Second), producer.WithRetry(2)}, opts...)
	p, err := rocketmq.NewProducer(all...)
	ok(err, "new producer")
	ok(p.Start(), "start of the producer")
	e.onClose(func() { p.Shutdown() })
	return p
}

func (e *env) producer() rocketmq.Producer {
	e.mu.Lock()
	p := e.prod
	e.mu.Unlock()
	if p == nil {
		p = e.newProducer()
		e.mu.Lock()
		e.prod = p
		e.mu.Unlock()
	}
	return p
}

// manual sends to the queue named in the message.
func (e *env) manual() rocketmq.Producer {
	return e.newProducer(producer.WithQueueSelector(producer.NewManualQueueSelector()))
}

type topicAdmin interface {
	CreateTopic(ctx context.Context, opts ...admin.OptionCreate) error
	DeleteTopic(ctx context.Context, opts ...admin.OptionDelete) error
	FetchPublishMessageQueues(ctx context.Context, topic string) ([]*primitive.MessageQueue, error)
	FetchAllTopicList(ctx context.Context) (*admin.TopicList, error)
	Close() error
}

// Admins of one process share one client, and closing one closes it for all: there is one for all cases.
var (
	adminOnce   sync.Once
	sharedAdmin topicAdmin
	brokerAddr  string
)

func (e *env) admin() topicAdmin {
	adminOnce.Do(func() {
		a, err := admin.NewAdmin(admin.WithResolver(e.resolver()))
		ok(err, "new admin")
		sharedAdmin = a
		// The admin wants the broker's address; a stored message's id holds it.
		r := e.send(e.fresh("address"), "where are you?")
		id, err := primitive.UnmarshalMsgID([]byte(r.OffsetMsgID))
		ok(err, "offset message id")
		brokerAddr = fmt.Sprintf("%s:%d", id.Addr, id.Port)
	})
	check(sharedAdmin != nil && brokerAddr != "", "no admin")
	return sharedAdmin
}

func (e *env) topic(queues int) string {
	t := e.fresh("T")
	e.create(t, queues)
	return t
}

func (e *env) create(t string, queues int) {
	a := e.admin()
	ok(a.CreateTopic(context.Background(), admin.WithTopicCreate(t), admin.WithBrokerAddrCreate(brokerAddr),
		admin.WithReadQueueNums(queues), admin.WithWriteQueueNums(queues)), "create topic")
	e.await(fmt.Sprintf("route of %s with %d queues", t, queues), 20*time.Second, func() bool {
		l, err := a.FetchPublishMessageQueues(context.Background(), t)
		return err == nil && len(l) == queues
	})
}

func (e *env) queues(t string) []*primitive.MessageQueue {
	l, err := e.admin().FetchPublishMessageQueues(context.Background(), t)
	ok(err, "queues of "+t)
	sort.Slice(l, func(i, j int) bool { return l[i].QueueId < l[j].QueueId })
	return l
}

func (e *env) await(what string, limit time.Duration, cond func() bool) time.Duration {
	start := time.Now()
	for !cond() {
		if time.Since(start) > limit {
			fail("after %s still waiting for %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(start)
}

func sendOK(r *primitive.SendResult, err error) *primitive.SendResult {
	ok(err, "send")
	check(r.Status == primitive.SendOK, "send status %v", r.Status)
	return r
}

func (e *env) send(topic, body string) *primitive.SendResult {
	return sendOK(e.producer().SendSync(context.Background(), primitive.NewMessage(topic, []byte(body))))
}

func (e *env) sendMany(topic, prefix string, n int) []string {
	var out []string
	for i := 0; i < n; i++ {
		body := fmt.Sprintf("%s%d", prefix, i)
		e.send(topic, body)
		out = append(out, body)
	}
	return out
}

var everything = consumer.MessageSelector{Type: consumer.TAG, Expression: "*"}

func (e *env) newPull(group, topic string) rocketmq.PullConsumer {
	c, err := rocketmq.NewPullConsumer(consumer.WithNsResolver(e.resolver()), consumer.WithInstance(e.instance()),
		consumer.WithGroupName(group))
	ok(err, "new pull consumer")
	ok(c.Subscribe(topic, everything), "subscribe")
	ok(c.Start(), "start of the pull consumer")
	e.onClose(func() { c.Shutdown() })
	return c
}

// beyond is an offset no queue has: the answer to it tells the true bounds at once.
const beyond = int64(1) << 40

func readAll(c rocketmq.PullConsumer, q *primitive.MessageQueue) ([]*primitive.MessageExt, error) {
	r, err := c.PullFrom(context.Background(), q, beyond, 1)
	if err != nil {
		return nil, err
	}
	if r.Status != primitive.PullOffsetIllegal {
		return nil, fmt.Errorf("pull beyond the end of %v: status %v", q, r.Status)
	}
	at, max := r.MinOffset, r.MaxOffset
	var out []*primitive.MessageExt
	for idle := 0; at < max; {
		r, err := c.PullFrom(context.Background(), q, at, 32)
		if err != nil {
			return nil, err
		}
		if r.Status != primitive.PullFound {
			if idle++; idle > 50 {
				return nil, fmt.Errorf("%v: nothing at %d below maximum %d: %v", q, at, max, r.Status)
			}
			time.Sleep(100 * time.Millisecond)
			continue
		}
		idle = 0
		for _, m := range r.GetMessageExts() {
			if m.QueueOffset != at {
				return nil, fmt.Errorf("%v: offset %d where %d was due", q, m.QueueOffset, at)
			}
			out = append(out, m)
			at++
		}
		if r.NextBeginOffset != at {
			return nil, fmt.Errorf("%v: next offset %d where %d was due", q, r.NextBeginOffset, at)
		}
	}
	return out, nil
}

// read waits until the topic holds n messages and gives them by queue.
func (e *env) read(topic string, n int) map[int][]*primitive.MessageExt {
	c := e.newPull(e.fresh("READER"), topic)
	var out map[int][]*primitive.MessageExt
	total := 0
	e.await(fmt.Sprintf("%d messages in %s", n, topic), 10*time.Second, func() bool {
		out, total = map[int][]*primitive.MessageExt{}, 0
		for _, q := range e.queues(topic) {
			l, err := readAll(c, q)
			ok(err, "read")
			out[q.QueueId] = l
			total += len(l)
		}
		return total >= n
	})
	check(total == n, "%d messages in %s, wanted %d", total, topic, n)
	return out
}

// sink collects what consumers receive.
type sink struct {
	mu   sync.Mutex
	msgs []*primitive.MessageExt
	last time.Time
}

func (s *sink) add(msgs ...*primitive.MessageExt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.msgs = append(s.msgs, msgs...)
	s.last = time.Now()
}

func (s *sink) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.msgs)
}

func (s *sink) at() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

func (s *sink) sorted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, m := range s.msgs {
		out = append(out, string(m.Body))
	}
	sort.Strings(out)
	return out
}

func (s *sink) listen(_ context.Context, msgs ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
	s.add(msgs...)
	return consumer.ConsumeSuccess, nil
}

func same(what string, got, want []string) {
	got, want = append([]string{}, got...), append([]string{}, want...)
	sort.Strings(got)
	sort.Strings(want)
	if strings.Join(got, "\x00") != strings.Join(want, "\x00") {
		g, w := fmt.Sprint(got), fmt.Sprint(want)
		if len(g) > 300 {
			g = g[:300] + "…"
		}
		if len(w) > 300 {
			w = w[:300] + "…"
		}
		fail("%s: got %d %s, wanted %d %s", what, len(got), g, len(want), w)
	}
}

func (s *sink) exactly(e *env, want []string, limit, settle time.Duration) {
	e.await(fmt.Sprintf("%d messages", len(want)), limit, func() bool { return s.size() >= len(want) })
	time.Sleep(settle)
	same("messages received", s.sorted(), want)
}

type listener func(context.Context, ...*primitive.MessageExt) (consumer.ConsumeResult, error)

func (e *env) push(group, topic, tags string, f listener, opts ...consumer.Option) rocketmq.PushConsumer {
	// The name server that this client asks may hear of a new topic after the one that the topic was waited for at; then
	// the client does not start, and cannot be started again.
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		all := append([]consumer.Option{consumer.WithNsResolver(e.resolver()), consumer.WithInstance(e.instance()),
			consumer.WithGroupName(group), consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset)}, opts...)
		c, err := rocketmq.NewPushConsumer(all...)
		ok(err, "new push consumer")
		ok(c.Subscribe(topic, consumer.MessageSelector{Type: consumer.TAG, Expression: tags}, f), "subscribe")
		err = c.Start()
		if err != nil && strings.Contains(err.Error(), "route info not found") && time.Now().Before(end) {
			c.Shutdown()
			continue
		}
		ok(err, "start of the push consumer")
		e.onClose(func() { c.Shutdown() })
		return c
	}
}
