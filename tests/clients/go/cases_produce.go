package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

func produceCases() []testCase {
	return []testCase{
		{name: "sync-send", body: syncSend},
		{name: "async-send", body: asyncSend},
		{name: "oneway-send", body: onewaySend},
		{name: "batch-send", body: batchSend},
		{name: "ordered-send", body: orderedSend},
		{name: "round-trip", body: roundTrip},
		{name: "compressed-body", body: compressedBody},
		{name: "size-limit", body: sizeLimit},
		{name: "auto-created-topic", body: autoCreated},
		{name: "admin-topic", body: adminTopic},
	}
}

func syncSend(e *env) {
	topic := e.topic(4)
	next := map[int]int64{}
	ids := map[string]bool{}
	var want []string
	for i := 0; i < 40; i++ {
		r := e.send(topic, fmt.Sprintf("sync-%d", i))
		want = append(want, fmt.Sprintf("sync-%d", i))
		q := r.MessageQueue.QueueId
		check(r.QueueOffset == next[q], "offset %d in queue %d where %d was due", r.QueueOffset, q, next[q])
		next[q]++
		check(!ids[r.MsgID] && !ids[r.OffsetMsgID], "an id twice: %s %s", r.MsgID, r.OffsetMsgID)
		ids[r.MsgID], ids[r.OffsetMsgID] = true, true
		_, err := primitive.UnmarshalMsgID([]byte(r.OffsetMsgID))
		ok(err, "offset message id")
	}
	check(len(next) == 4, "queues used: %v", next)
	var got []string
	for _, l := range e.read(topic, 40) {
		for _, m := range l {
			got = append(got, string(m.Body))
		}
	}
	same("what is stored", got, want)
}

func asyncSend(e *env) {
	topic := e.topic(4)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var bad error
	offsets := map[string]bool{}
	for i := 0; i < 200; i++ {
		wg.Add(1)
		ok(e.producer().SendAsync(context.Background(), func(_ context.Context, r *primitive.SendResult, err error) {
			defer wg.Done()
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				bad = err
			} else if r.Status != primitive.SendOK {
				bad = fmt.Errorf("status %v", r.Status)
			} else {
				offsets[fmt.Sprint(r.MessageQueue.QueueId, "/", r.QueueOffset)] = true
			}
		}, primitive.NewMessage(topic, []byte(fmt.Sprintf("async-%d", i)))), "send")
	}
	wg.Wait()
	ok(bad, "callback")
	check(len(offsets) == 200, "%d different places", len(offsets))
	e.read(topic, 200)
}

func onewaySend(e *env) {
	topic := e.topic(2)
	for i := 0; i < 50; i++ {
		ok(e.producer().SendOneWay(context.Background(), primitive.NewMessage(topic, []byte(fmt.Sprintf("oneway-%d", i)))), "send")
	}
	e.read(topic, 50)
}

func batchSend(e *env) {
	topic := e.topic(2)
	var batch []*primitive.Message
	for i := 0; i < 20; i++ {
		m := primitive.NewMessage(topic, []byte(fmt.Sprintf("batch-%d-ä", i)))
		m.WithTag("tag" + strconv.Itoa(i%2))
		m.WithProperty("n", strconv.Itoa(i))
		batch = append(batch, m)
	}
	r := sendOK(e.producer().SendSync(context.Background(), batch...))
	check(r.QueueOffset == 0, "offset %d", r.QueueOffset)
	check(len(strings.Split(r.OffsetMsgID, ",")) == 20, "ids %s", r.OffsetMsgID)
	got := e.read(topic, 20)[r.MessageQueue.QueueId]
	check(len(got) == 20, "%d messages in the batch's queue", len(got))
	for i, m := range got {
		check(string(m.Body) == fmt.Sprintf("batch-%d-ä", i), "body %s at %d", m.Body, i)
		check(m.GetTags() == "tag"+strconv.Itoa(i%2), "tag %s at %d", m.GetTags(), i)
		check(m.GetProperty("n") == strconv.Itoa(i), "property %s at %d", m.GetProperty("n"), i)
	}
}

func orderedSend(e *env) {
	topic := e.topic(4)
	p := e.manual()
	qs := e.queues(topic)
	for i := 0; i < 20; i++ {
		for k, q := range qs {
			m := primitive.NewMessage(topic, []byte(fmt.Sprintf("%d-%d", k, i)))
			m.Queue = q
			r := sendOK(p.SendSync(context.Background(), m))
			check(r.MessageQueue.QueueId == k, "went to queue %d, wanted %d", r.MessageQueue.QueueId, k)
			check(r.QueueOffset == int64(i), "offset %d, wanted %d", r.QueueOffset, i)
		}
	}
	for k, l := range e.read(topic, 80) {
		for i, m := range l {
			check(string(m.Body) == fmt.Sprintf("%d-%d", k, i), "%s at %d/%d", m.Body, k, i)
		}
	}
}

func roundTrip(e *env) {
	topic := e.topic(1)
	body := make([]byte, 300)
	for i := range body {
		body[i] = byte(i)
	}
	m := primitive.NewMessage(topic, body)
	m.WithTag("täg-日本")
	m.WithKeys([]string{"k1", "k2"})
	m.WithProperty("größe", "schön \"quoted\" {} 漢字 🎉")
	m.Flag = 0x1234567
	before := time.Now()
	r := sendOK(e.producer().SendSync(context.Background(), m))
	got := e.read(topic, 1)[0][0]
	check(bytes.Equal(got.Body, body), "body changed")
	check(got.Topic == topic, "topic %s", got.Topic)
	check(got.GetTags() == "täg-日本", "tags %s", got.GetTags())
	check(strings.TrimSpace(got.GetKeys()) == "k1 k2", "keys %s", got.GetKeys())
	check(got.GetProperty("größe") == "schön \"quoted\" {} 漢字 🎉", "property %s", got.GetProperty("größe"))
	check(got.Flag == 0x1234567, "flag %x", got.Flag)
	check(got.MsgId == r.MsgID, "message id %s, sent %s", got.MsgId, r.MsgID)
	check(got.OffsetMsgId == r.OffsetMsgID, "offset message id %s, sent %s", got.OffsetMsgId, r.OffsetMsgID)
	born := time.UnixMilli(got.BornTimestamp).Sub(before)
	check(born > -5*time.Second && born < 5*time.Second, "born %s off", born)
}

func compressedBody(e *env) {
	topic := e.topic(1)
	big := bytes.Repeat([]byte("z"), 64*1024)
	e.send(topic, string(big))
	got := e.read(topic, 1)[0][0]
	check(bytes.Equal(got.Body, big), "body changed: %d bytes", len(got.Body))
	check(got.StoreSize < 8192, "stored in %d bytes", got.StoreSize)
	s := &sink{}
	e.push(e.fresh("CG"), topic, "*", s.listen)
	s.exactly(e, []string{string(big)}, 20*time.Second, 0)
}

func sizeLimit(e *env) {
	topic := e.topic(1)
	over := make([]byte, 4<<20+200_000)
	rand.New(rand.NewSource(7)).Read(over)
	_, err := e.producer().SendSync(context.Background(), primitive.NewMessage(topic, over))
	check(err != nil, "a body above the limit was accepted")
	fits := over[:4<<20-100_000]
	r := sendOK(e.producer().SendSync(context.Background(), primitive.NewMessage(topic, fits)))
	check(r.QueueOffset == 0, "offset %d", r.QueueOffset)
	check(bytes.Equal(e.read(topic, 1)[0][0].Body, fits), "body changed")
}

func autoCreated(e *env) {
	topic := e.fresh("new")
	want := e.sendMany(topic, "m", 8)
	e.await("route", 10*time.Second, func() bool {
		l, err := e.admin().FetchPublishMessageQueues(context.Background(), topic)
		return err == nil && len(l) == 4
	})
	var got []string
	for _, l := range e.read(topic, 8) {
		for _, m := range l {
			got = append(got, string(m.Body))
		}
	}
	same("what is stored", got, want)
}

func adminTopic(e *env) {
	topic := e.topic(6)
	listed := func() bool {
		l, err := e.admin().FetchAllTopicList(context.Background())
		ok(err, "topic list")
		for _, t := range l.TopicList {
			if t == topic {
				return true
			}
		}
		return false
	}
	e.await("topic in the list", 10*time.Second, listed)
	e.sendMany(topic, "m", 6)
	e.read(topic, 6)
	ok(e.admin().DeleteTopic(context.Background(), admin.WithTopicDelete(topic), admin.WithBrokerAddrDelete(brokerAddr)), "delete topic")
	e.await("topic gone from the list", 10*time.Second, func() bool { return !listed() })
	// The admin keeps routes; a client that has not seen the topic must not find it.
	c, err := consumer.NewPushConsumer(consumer.WithNsResolver(e.resolver()), consumer.WithInstance(e.instance()),
		consumer.WithGroupName(e.fresh("CG")))
	ok(err, "new push consumer")
	ok(c.Subscribe(topic, everything, (&sink{}).listen), "subscribe")
	check(c.Start() != nil, "a deleted topic still has a route")
}
