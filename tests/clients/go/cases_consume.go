package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

func allCases() []testCase {
	return append([]testCase{
		{name: "retry", body: retry, seconds: 90},
		{name: "dead-letter", body: deadLetter, seconds: 90},
		{name: "push-orderly", body: func(e *env) { orderly(e, 1) }, seconds: 100},
		{name: "push-orderly-two", body: func(e *env) { orderly(e, 2) }, seconds: 200, slow: true},
		{name: "rebalance", body: rebalance, seconds: 120},
		{name: "delay-levels", body: delayLevels},
		{name: "broadcasting", body: broadcasting},
		{name: "push-concurrent", body: pushConcurrent},
		{name: "tag-filter", body: tagFilter},
		{name: "batch-consume", body: batchConsume},
		{name: "offsets-persisted", body: offsetsPersisted},
		{name: "first-message", body: firstMessage},
		{name: "long-poll-latency", body: longPollLatency},
		{name: "consume-from-last", body: fromLast},
		{name: "pull", body: pull},
		{name: "poll", body: poll},
		{name: "consumer-without-topic", body: withoutTopic},
	}, append(changeCases(), produceCases()...)...)
}

func pushConcurrent(e *env) {
	topic := e.topic(4)
	s := &sink{}
	e.push(e.fresh("CG"), topic, "*", s.listen)
	want := e.sendMany(topic, "push-", 200)
	s.exactly(e, want, 30*time.Second, time.Second)
}

func tagFilter(e *env) {
	topic := e.topic(2)
	two, one := &sink{}, &sink{}
	e.push(e.fresh("AB"), topic, "A || B", two.listen)
	e.push(e.fresh("U"), topic, "日本", one.listen)
	tags := []string{"A", "B", "C", "", "日本"}
	var wantTwo, wantOne []string
	for i := 0; i < 50; i++ {
		body := fmt.Sprintf("m%d", i)
		m := primitive.NewMessage(topic, []byte(body))
		tag := tags[i%len(tags)]
		if tag != "" {
			m.WithTag(tag)
		}
		sendOK(e.producer().SendSync(context.Background(), m))
		switch tag {
		case "A", "B":
			wantTwo = append(wantTwo, body)
		case "日本":
			wantOne = append(wantOne, body)
		}
	}
	two.exactly(e, wantTwo, 20*time.Second, 500*time.Millisecond)
	// The Go client computes tag codes from bytes, so a broker that filters by UTF-16 codes
	// passes none of the messages with this tag; the client's own check allows no other.
	time.Sleep(500 * time.Millisecond)
	e.note("tag outside ASCII: %d of %d delivered", one.size(), len(wantOne))
	if one.size() > 0 {
		same("messages with a tag outside ASCII", one.sorted(), wantOne)
	}
}

func batchConsume(e *env) {
	topic := e.topic(1)
	want := e.sendMany(topic, "m", 100)
	s := &sink{}
	var mu sync.Mutex
	largest := 0
	e.push(e.fresh("CG"), topic, "*", func(_ context.Context, msgs ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		mu.Lock()
		if len(msgs) > largest {
			largest = len(msgs)
		}
		mu.Unlock()
		s.add(msgs...)
		return consumer.ConsumeSuccess, nil
	}, consumer.WithConsumeMessageBatchMaxSize(16), consumer.WithPullBatchSize(32))
	s.exactly(e, want, 20*time.Second, 500*time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	check(largest > 1 && largest <= 16, "largest batch %d", largest)
}

func offsetsPersisted(e *env) {
	topic := e.topic(4)
	group := e.fresh("CG")
	first := &sink{}
	c := e.push(group, topic, "*", first.listen)
	one := e.sendMany(topic, "one", 60)
	first.exactly(e, one, 20*time.Second, 300*time.Millisecond)
	ok(c.Shutdown(), "shutdown")
	two := e.sendMany(topic, "two", 40)
	second := &sink{}
	e.push(group, topic, "*", second.listen)
	second.exactly(e, two, 20*time.Second, time.Second)
	check(first.size() == 60, "the one that left has %d", first.size())
}

func firstMessage(e *env) {
	topic := e.topic(4)
	want := e.sendMany(topic, "m", 4)
	s := &sink{}
	start := time.Now()
	e.push(e.fresh("CG"), topic, "*", s.listen)
	e.await("first message", 20*time.Second, func() bool { return s.size() > 0 })
	took := time.Since(start)
	e.note("first message %d ms after start", took.Milliseconds())
	// A client that missed its first chance asks again after 20 s.
	check(took < 15*time.Second, "first message only after %s", took)
	s.exactly(e, want, 10*time.Second, 300*time.Millisecond)
}

func longPollLatency(e *env) {
	topic := e.topic(4)
	s := &sink{}
	e.push(e.fresh("CG"), topic, "*", s.listen)
	e.send(topic, "warm")
	e.await("warm-up", 20*time.Second, func() bool { return s.size() == 1 })
	time.Sleep(2 * time.Second)
	var largest, sum time.Duration
	for i := 0; i < 10; i++ {
		have := s.size()
		start := time.Now()
		e.send(topic, fmt.Sprintf("m%d", i))
		e.await("message", 10*time.Second, func() bool { return s.size() > have })
		took := s.at().Sub(start)
		sum += took
		if took > largest {
			largest = took
		}
		time.Sleep(200 * time.Millisecond)
	}
	e.note("send to delivery: mean %d ms, largest %d ms", (sum / 10).Milliseconds(), largest.Milliseconds())
	// A pull that is not woken is looked at every 5 s.
	check(largest < 4*time.Second, "a waiting consumer got its message only after %s", largest)
}

// A new group on a young topic may begin at 0 whatever its policy: the old ones come all or not at all.
func fromLast(e *env) {
	topic := e.topic(2)
	old := e.sendMany(topic, "old", 20)
	s := &sink{}
	e.push(e.fresh("CG"), topic, "*", s.listen, consumer.WithConsumeFromWhere(consumer.ConsumeFromLastOffset))
	// The start returns before the first rebalance is over.
	time.Sleep(3 * time.Second)
	want := e.sendMany(topic, "new", 20)
	e.await("the new ones", 20*time.Second, func() bool {
		got := map[string]bool{}
		for _, body := range s.sorted() {
			got[body] = true
		}
		for _, body := range want {
			if !got[body] {
				return false
			}
		}
		return true
	})
	time.Sleep(700 * time.Millisecond)
	if s.size() > 20 {
		e.note("began at 0 (young topic)")
		want = append(want, old...)
	}
	s.exactly(e, want, 20*time.Second, 0)
}

func delayLevels(e *env) {
	topic := e.topic(2)
	s := &sink{}
	var mu sync.Mutex
	early, late := time.Hour, -time.Hour
	e.push(e.fresh("CG"), topic, "*", func(_ context.Context, msgs ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		now := time.Now().UnixMilli()
		mu.Lock()
		for _, m := range msgs {
			due, _ := strconv.ParseInt(m.GetProperty("due"), 10, 64)
			off := time.Duration(now-due) * time.Millisecond
			if off < early {
				early = off
			}
			if off > late {
				late = off
			}
		}
		mu.Unlock()
		s.add(msgs...)
		return consumer.ConsumeSuccess, nil
	})
	time.Sleep(time.Second)
	var want []string
	for level, wait := range map[int]int64{1: 1000, 2: 5000, 3: 10000} {
		for i := 0; i < 3; i++ {
			body := fmt.Sprintf("delay-%d-%d", level, i)
			m := primitive.NewMessage(topic, []byte(body))
			m.WithDelayTimeLevel(level)
			m.WithProperty("due", strconv.FormatInt(time.Now().UnixMilli()+wait, 10))
			sendOK(e.producer().SendSync(context.Background(), m))
			want = append(want, body)
		}
	}
	s.exactly(e, want, 60*time.Second, time.Second)
	mu.Lock()
	defer mu.Unlock()
	e.note("delivered %d..%d ms after due", early.Milliseconds(), late.Milliseconds())
	check(early >= -10*time.Millisecond, "delivered %s too early", -early)
	// Were each level the next one, the last would take 30 s.
	check(late < 15*time.Second, "delivered %s too late", late)
}

func retry(e *env) {
	topic := e.topic(2)
	var mu sync.Mutex
	var seen []*primitive.MessageExt
	var at []time.Time
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(seen) }
	e.push(e.fresh("CG"), topic, "*", func(ctx context.Context, msgs ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		mu.Lock()
		defer mu.Unlock()
		for _, m := range msgs {
			seen = append(seen, m)
			at = append(at, time.Now())
			if m.ReconsumeTimes < 2 {
				if c, is := primitive.GetConcurrentlyCtx(ctx); is {
					c.DelayLevelWhenNextConsume = 1
				}
				return consumer.ConsumeRetryLater, nil
			}
		}
		return consumer.ConsumeSuccess, nil
	})
	m := primitive.NewMessage(topic, []byte("retry me"))
	m.WithTag("tag")
	m.WithProperty("p", "v")
	sendOK(e.producer().SendSync(context.Background(), m))
	first := 10 * time.Second
	if e.stock {
		first = 60 * time.Second
	}
	e.await("first delivery", 20*time.Second, func() bool { return count() >= 1 })
	e.await("first retry", first, func() bool { return count() >= 2 })
	e.await("second retry", 10*time.Second, func() bool { return count() >= 3 })
	time.Sleep(2500 * time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	check(len(seen) == 3, "%d deliveries", len(seen))
	for i, x := range seen {
		check(int(x.ReconsumeTimes) == i, "reconsume times %d at delivery %d", x.ReconsumeTimes, i)
		check(string(x.Body) == "retry me" && x.GetTags() == "tag" && x.GetProperty("p") == "v", "message changed: %s", x)
	}
	e.note("first retry after %d ms, second after %d ms", at[1].Sub(at[0]).Milliseconds(), at[2].Sub(at[1]).Milliseconds())
	check(at[1].Sub(at[0]) >= 990*time.Millisecond && at[2].Sub(at[1]) >= 990*time.Millisecond, "retried too early")
}

func deadLetter(e *env) {
	topic := e.topic(1)
	group := e.fresh("CG")
	var mu sync.Mutex
	var seen []int32
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(seen) }
	e.push(group, topic, "*", func(ctx context.Context, msgs ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		mu.Lock()
		defer mu.Unlock()
		for _, m := range msgs {
			seen = append(seen, m.ReconsumeTimes)
		}
		if c, is := primitive.GetConcurrentlyCtx(ctx); is {
			c.DelayLevelWhenNextConsume = 1
		}
		return consumer.ConsumeRetryLater, nil
	}, consumer.WithMaxReconsumeTimes(1))
	e.send(topic, "never works")
	limit := 15 * time.Second
	if e.stock {
		limit = 70 * time.Second
	}
	e.await("the retry", limit, func() bool { return count() >= 2 })
	dlq := "%DLQ%" + group
	e.await("route of the dead letter topic", 20*time.Second, func() bool {
		l, err := e.admin().FetchPublishMessageQueues(context.Background(), dlq)
		return err == nil && len(l) > 0
	})
	got := e.read(dlq, 1)[0][0]
	check(string(got.Body) == "never works", "body %s", got.Body)
	check(got.GetProperty(primitive.PropertyRetryTopic) == topic, "original topic %s", got.GetProperty(primitive.PropertyRetryTopic))
	time.Sleep(1500 * time.Millisecond)
	check(count() == 2, "%d deliveries", count())
}

func broadcasting(e *env) {
	topic := e.topic(4)
	group := e.fresh("CG")
	sinks := []*sink{{}, {}}
	for _, s := range sinks {
		e.push(group, topic, "*", s.listen, consumer.WithConsumerModel(consumer.BroadCasting))
	}
	want := e.sendMany(topic, "b", 40)
	for _, s := range sinks {
		s.exactly(e, want, 40*time.Second, 300*time.Millisecond)
	}
}

// order checks the order in each queue and that no queue is worked on by two at once.
type order struct {
	mu        sync.Mutex
	done      map[int][]int
	busy      map[int]string
	refused   map[string]bool
	suspended int
	wrong     string
	by        map[string]int
}

func (o *order) listen(who string) listener {
	return func(ctx context.Context, msgs ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, m := range msgs {
			q := m.Queue.QueueId
			o.mu.Lock()
			if o.busy[q] != "" && o.wrong == "" {
				o.wrong = fmt.Sprintf("queue %d at %s while at %s", q, who, o.busy[q])
			}
			o.busy[q] = who
			o.mu.Unlock()
			time.Sleep(2 * time.Millisecond)
			o.mu.Lock()
			o.busy[q] = ""
			body := string(m.Body)
			seq, _ := strconv.Atoi(body[strings.Index(body, "-")+1:])
			if seq%17 == 5 && !o.refused[body] {
				o.refused[body] = true
				o.suspended++
				o.mu.Unlock()
				if c, is := primitive.GetOrderlyCtx(ctx); is {
					c.SuspendCurrentQueueTimeMillis = 50
				}
				return consumer.SuspendCurrentQueueAMoment, nil
			}
			o.done[q] = append(o.done[q], seq)
			o.by[who]++
			o.mu.Unlock()
		}
		return consumer.ConsumeSuccess, nil
	}
}

// least is how far the queue that is furthest behind has come.
func (o *order) least(qs []*primitive.MessageQueue) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(o.done[qs[0].QueueId])
	for _, q := range qs {
		if len(o.done[q.QueueId]) < n {
			n = len(o.done[q.QueueId])
		}
	}
	return n
}

// orderly has one consumer, or two: the client never gives back a lock when its share shrinks, so the second
// gets its queues when the locks have run out on the broker, 60 s later.
func orderly(e *env, consumers int) {
	topic := e.topic(4)
	group := e.fresh("CG")
	o := &order{done: map[int][]int{}, busy: map[int]string{}, refused: map[string]bool{}, by: map[string]int{}}
	for i := 0; i < consumers; i++ {
		e.push(group, topic, "*", o.listen(string(rune('a'+i))), consumer.WithConsumerOrder(true),
			consumer.WithSuspendCurrentQueueTimeMillis(50*time.Millisecond))
	}
	p := e.manual()
	qs := e.queues(topic)
	sent := 0
	send := func() {
		for k, q := range qs {
			m := primitive.NewMessage(topic, []byte(fmt.Sprintf("%d-%d", k, sent)))
			m.Queue = q
			sendOK(p.SendSync(context.Background(), m))
		}
		sent++
	}
	for sent < 50 {
		send()
	}
	// After a suspension this client goes on with the queue only when another message arrives.
	for end := time.Now().Add(time.Duration(consumers) * 80 * time.Second); o.least(qs) < 50; send() {
		check(time.Now().Before(end), "only %d messages of some queue in the time, %d sent to each", o.least(qs), sent)
		time.Sleep(300 * time.Millisecond)
	}
	time.Sleep(300 * time.Millisecond)
	o.mu.Lock()
	defer o.mu.Unlock()
	check(o.wrong == "", "two at once: %s", o.wrong)
	for q, l := range o.done {
		for i, seq := range l {
			check(seq == i, "queue %d: %d where %d was due", q, seq, i)
		}
	}
	check(o.suspended >= 12, "suspended %d times", o.suspended)
	e.note("shares %v", o.by)
	check(len(o.by) == consumers, "%d of %d worked", len(o.by), consumers)
}

func rebalance(e *env) {
	topic := e.topic(8)
	group := e.fresh("CG")
	a, b := &sink{}, &sink{}
	e.push(group, topic, "*", a.listen)
	p := e.manual()
	qs := e.queues(topic)
	var sent []string
	round := 0
	// probe sends one message to each queue and tells how many of them each one got.
	probe := func() (int, int) {
		hadA, hadB := a.size(), b.size()
		for _, q := range qs {
			body := fmt.Sprintf("r%d-%d", round, q.QueueId)
			m := primitive.NewMessage(topic, []byte(body))
			m.Queue = q
			sendOK(p.SendSync(context.Background(), m))
			sent = append(sent, body)
		}
		round++
		e.await("the round", 30*time.Second, func() bool { return a.size()+b.size() >= hadA+hadB+8 })
		return a.size() - hadA, b.size() - hadB
	}
	shared := func(what string, wantA, wantB int) time.Duration {
		return e.await(what, 45*time.Second, func() bool {
			x, y := probe()
			if x != wantA || y != wantB {
				time.Sleep(200 * time.Millisecond)
			}
			return x == wantA && y == wantB
		})
	}
	shared("all at the first", 8, 0)
	c := e.push(group, topic, "*", b.listen)
	join := shared("half each", 4, 4)
	ok(c.Shutdown(), "shutdown")
	leave := shared("all back at the first", 8, 0)
	e.note("join %d ms, leave %d ms", join.Milliseconds(), leave.Milliseconds())
	got := map[string]bool{}
	for _, body := range append(a.sorted(), b.sorted()...) {
		got[body] = true
	}
	for _, body := range sent {
		check(got[body], "lost %s", body)
	}
	e.note("%d repeated", len(a.sorted())+len(b.sorted())-len(sent))
}

func pull(e *env) {
	topic := e.topic(2)
	p := e.manual()
	q := e.queues(topic)[1]
	for i := 0; i < 50; i++ {
		m := primitive.NewMessage(topic, []byte(fmt.Sprintf("m%d", i)))
		m.Queue = q
		sendOK(p.SendSync(context.Background(), m))
	}
	e.read(topic, 50)
	group := e.fresh("CG")
	c := e.newPull(group, topic)
	r, err := c.PullFrom(context.Background(), q, 0, 10)
	ok(err, "pull")
	check(r.Status == primitive.PullFound && len(r.GetMessageExts()) == 10, "status %v, %d messages", r.Status, len(r.GetMessageExts()))
	check(r.NextBeginOffset == 10 && r.MinOffset == 0 && r.MaxOffset == 50, "offsets %d %d %d", r.NextBeginOffset, r.MinOffset, r.MaxOffset)
	r, err = c.PullFrom(context.Background(), q, 51, 10)
	ok(err, "pull")
	check(r.Status == primitive.PullOffsetIllegal && r.NextBeginOffset == 50, "status %v, next %d", r.Status, r.NextBeginOffset)
	// The first rebalance, in the background of the start, throws offsets in memory away once.
	e.await("offset 30", 10*time.Second, func() bool {
		ok(c.UpdateOffset(q, 30), "update of the offset")
		ok(c.PersistOffset(context.Background(), topic), "persist")
		off, err := c.CurrentOffset(q)
		ok(err, "current offset")
		return off == 30
	})
	ok(c.Shutdown(), "shutdown")
}

func poll(e *env) {
	topic := e.topic(2)
	group := e.fresh("CG")
	want := e.sendMany(topic, "m", 40)
	take := func(n int) []string {
		c, err := newPollConsumer(e, group, topic)
		ok(err, "start of the poll consumer")
		var got []string
		e.await(fmt.Sprintf("%d messages by poll", n), 30*time.Second, func() bool {
			r, err := c.Poll(context.Background(), 500*time.Millisecond)
			if err == nil && r != nil {
				for _, m := range r.GetMsgList() {
					got = append(got, string(m.Body))
				}
				c.ACK(context.Background(), r, consumer.ConsumeSuccess)
			}
			return len(got) >= n
		})
		time.Sleep(time.Second)
		ok(c.Shutdown(), "shutdown")
		return got
	}
	same("messages by poll", take(40), want)
	more := e.sendMany(topic, "n", 10)
	same("messages after the restart", take(10), more)
}

type poller interface {
	Poll(ctx context.Context, timeout time.Duration) (*consumer.ConsumeRequest, error)
	ACK(ctx context.Context, cr *consumer.ConsumeRequest, consumeResult consumer.ConsumeResult)
	Shutdown() error
}

func newPollConsumer(e *env, group, topic string) (poller, error) {
	c, err := consumer.NewPullConsumer(consumer.WithNsResolver(e.resolver()), consumer.WithInstance(e.instance()),
		consumer.WithGroupName(group), consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset))
	if err != nil {
		return nil, err
	}
	if err := c.Subscribe(topic, everything); err != nil {
		return nil, err
	}
	e.onClose(func() { c.Shutdown() })
	return c, c.Start()
}

// A Go consumer of a topic without a route refuses to start.
func withoutTopic(e *env) {
	c, err := consumer.NewPushConsumer(consumer.WithNsResolver(e.resolver()), consumer.WithInstance(e.instance()),
		consumer.WithGroupName(e.fresh("CG")))
	ok(err, "new push consumer")
	ok(c.Subscribe(e.fresh("missing"), everything, (&sink{}).listen), "subscribe")
	err = c.Start()
	check(err != nil && strings.Contains(err.Error(), "route info not found"), "start of a consumer without a topic: %v", err)
}
