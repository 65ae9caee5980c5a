package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// drain takes in a backlog with a push consumer of default settings, and prints how long that took as JSON. The
// Java program Drain does the same.
func drain(args []string) int {
	f := flag.NewFlagSet("drain", flag.ExitOnError)
	namesrv := f.String("namesrv", "", "address of a name server")
	topic := f.String("topic", "", "topic to read")
	group := f.String("group", "DRAIN-"+strconv.FormatInt(time.Now().UnixNano(), 36), "consumer group")
	messages := f.Int("messages", 0, "messages of the backlog")
	seconds := f.Int("seconds", 300, "give up after so long")
	ok(f.Parse(args), "arguments")

	type place struct {
		queue  int
		offset int64
	}
	var mu sync.Mutex
	seen := map[place]bool{}
	var copies, bytes int64
	var first, last time.Time
	all := make(chan struct{})
	c, err := rocketmq.NewPushConsumer(
		consumer.WithNsResolver(primitive.NewPassthroughResolver(strings.Split(*namesrv, ";"))),
		consumer.WithGroupName(*group),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset))
	ok(err, "new consumer")
	ok(c.Subscribe(*topic, consumer.MessageSelector{}, func(_ context.Context, msgs ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		now := time.Now()
		mu.Lock()
		defer mu.Unlock()
		if first.IsZero() {
			first = now
		}
		for _, m := range msgs {
			bytes += int64(len(m.Body))
			at := place{m.Queue.QueueId, m.QueueOffset}
			if seen[at] {
				copies++
			}
			seen[at] = true
		}
		if len(seen) >= *messages && last.IsZero() {
			last = now
			close(all)
		}
		return consumer.ConsumeSuccess, nil
	}), "subscribe")
	begin := time.Now()
	ok(c.Start(), "start")
	done := true
	select {
	case <-all:
	case <-time.After(time.Duration(*seconds) * time.Second):
		done = false
	}
	mu.Lock()
	if !done {
		last = time.Now()
	}
	out, _ := json.Marshal(map[string]interface{}{"ok": done, "messages": len(seen), "copies": copies, "bytes": bytes,
		"seconds": last.Sub(begin).Seconds(), "first_s": first.Sub(begin).Seconds()})
	mu.Unlock()
	fmt.Println(string(out))
	if !done {
		return 1
	}
	return 0
}
