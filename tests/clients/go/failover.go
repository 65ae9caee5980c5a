package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

const failoverKeys = 8

// failover is an application that knows nothing of faults, with the client's default settings, while somebody
// else kills and stops nodes. The Java program Failover does the same.
type failover struct {
	namesrv  string
	run      string
	mu       sync.Mutex
	counts   map[string]int64
	examples []string
	acked    map[string]bool
	ordered  map[string]bool
	end      time.Time
}

func (f *failover) bad(what, format string, args ...interface{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts[what]++; f.counts[what] <= 5 {
		f.examples = append(f.examples, what+": "+fmt.Sprintf(format, args...))
	}
}

func (f *failover) sent(what string, began time.Time, to map[string]bool, id string, r *primitive.SendResult, err error) bool {
	took := time.Since(began).Milliseconds()
	if err != nil || r.Status != primitive.SendOK {
		if err != nil && strings.Contains(err.Error(), "connection refused") {
			// All its tries went to queues of brokers that were known by the address of a dead node.
			f.bad("sync_unreachable", "%s after %d ms: %v", id, took, err)
		} else if what != "order" {
			f.bad(what+"_failed", "%s after %d ms: %v %v", id, took, r, err)
		}
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	to[id] = true
	f.counts[what+"_sent"]++
	if took > f.counts[what+"_slowest_ms"] {
		f.counts[what+"_slowest_ms"] = took
	}
	return true
}

func (f *failover) producer(name string, opts ...producer.Option) rocketmq.Producer {
	all := append([]producer.Option{producer.WithNsResolver(primitive.NewPassthroughResolver(strings.Split(f.namesrv, ";"))),
		producer.WithInstanceName(name + f.run), producer.WithGroupName("FO-" + name)}, opts...)
	p, err := rocketmq.NewProducer(all...)
	ok(err, "new producer")
	ok(p.Start(), "start of the producer")
	return p
}

type got struct {
	name string
	mu   sync.Mutex
	seen map[string]int
	last map[string]int
}

func (f *failover) take(g *got, m *primitive.MessageExt, ordered bool) {
	id := string(m.Body)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.seen[id]++; g.seen[id] > 1 {
		f.mu.Lock()
		f.counts[g.name+"_again"]++
		f.mu.Unlock()
		return
	}
	late := time.Now().UnixMilli() - m.StoreTimestamp
	f.mu.Lock()
	if late > f.counts[g.name+"_latest_ms"] {
		f.counts[g.name+"_latest_ms"] = late
	}
	f.mu.Unlock()
	if colon := strings.Index(id, ":"); ordered && colon > 0 {
		seq, _ := strconv.Atoi(id[colon+1:])
		if before, is := g.last[id[:colon]]; is && before > seq {
			f.bad(g.name+"_disorder", "%s after %d", id, before)
		}
		g.last[id[:colon]] = seq
	}
}

func (f *failover) missing(g *got, wanted map[string]bool) (ids []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range wanted {
		if g.seen[id] == 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

func (f *failover) consume(g *got, name, topic string, ordered bool) {
	c, err := rocketmq.NewPushConsumer(consumer.WithNsResolver(primitive.NewPassthroughResolver(strings.Split(f.namesrv, ";"))),
		consumer.WithInstance(name+f.run), consumer.WithGroupName("FO-"+g.name+"-"+f.run),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset), consumer.WithConsumerOrder(ordered))
	ok(err, "new consumer")
	ok(c.Subscribe(topic, everything, func(_ context.Context, msgs ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, m := range msgs {
			f.take(g, m, ordered)
		}
		return consumer.ConsumeSuccess, nil
	}), "subscribe")
	ok(c.Start(), "start of the consumer")
}

func runFailover(args []string) int {
	fs := flag.NewFlagSet("failover", flag.ExitOnError)
	namesrv := fs.String("namesrv", "", "addresses of name servers")
	topic := fs.String("topic", "", "topic that exists")
	orderly := fs.String("orderly", "", "another")
	seconds := fs.Int("seconds", 60, "duration")
	ok(fs.Parse(args), "arguments")
	f := &failover{namesrv: *namesrv, run: strconv.FormatInt(time.Now().UnixNano(), 36), counts: map[string]int64{},
		acked: map[string]bool{}, ordered: map[string]bool{}}
	for _, what := range []string{"sync_failed", "push_missing", "orderly_missing", "orderly_disorder"} {
		f.counts[what] = 0
	}
	all := &got{name: "push", seen: map[string]int{}, last: map[string]int{}}
	inOrder := &got{name: "orderly", seen: map[string]int{}, last: map[string]int{}}
	for i := 0; i < 2; i++ {
		f.consume(all, fmt.Sprintf("push%d", i), *topic, false)
		f.consume(inOrder, fmt.Sprintf("orderly%d", i), *orderly, true)
	}
	f.end = time.Now().Add(time.Duration(*seconds) * time.Second)
	var wg sync.WaitGroup
	for n := 0; n < 2; n++ {
		p := f.producer(fmt.Sprintf("sync%d", n))
		wg.Add(1)
		go func(n int) {
			defer wg.Done()
			for seq := 0; time.Now().Before(f.end); seq++ {
				id := fmt.Sprintf("s%d:%d", n, seq)
				began := time.Now()
				r, err := p.SendSync(context.Background(), primitive.NewMessage(*topic, []byte(id)))
				f.sent("sync", began, f.acked, id, r, err)
				time.Sleep(5 * time.Millisecond)
			}
		}(n)
	}
	// No asynchronous producer: the client (2.1.2) panics in its own callback when a connection breaks.
	order := f.producer("order", producer.WithQueueSelector(producer.NewHashQueueSelector()))
	wg.Add(1)
	go func() {
		defer wg.Done()
		for seq := 0; time.Now().Before(f.end); seq++ {
			key := fmt.Sprintf("o%d", seq%failoverKeys)
			id := fmt.Sprintf("%s:%d", key, seq)
			m := primitive.NewMessage(*orderly, []byte(id)).WithShardingKey(key)
			for {
				began := time.Now()
				r, err := order.SendSync(context.Background(), m)
				if f.sent("order", began, f.ordered, id, r, err) {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	fmt.Println("READY")
	wg.Wait()
	for until := time.Now().Add(120 * time.Second); time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
		if len(f.missing(all, f.acked)) == 0 && len(f.missing(inOrder, f.ordered)) == 0 {
			break
		}
	}
	for _, id := range f.missing(all, f.acked) {
		f.bad("push_missing", "%s", id)
	}
	for _, id := range f.missing(inOrder, f.ordered) {
		f.bad("orderly_missing", "%s", id)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	report := map[string]interface{}{"examples": f.examples}
	for what, n := range f.counts {
		report[what] = n
	}
	text, err := json.Marshal(report)
	ok(err, "report")
	fmt.Println("REPORT " + string(text))
	os.Stdout.Sync()
	return 0
}
