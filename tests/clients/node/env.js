'use strict';

// What a case needs: fresh names, clients that are closed at its end, a sink for messages, waiting.

const { Consumer, Producer, Message } = require('ali-ons');
const MQClientAPI = require('ali-ons/lib/mq_client_api');
const RemotingCommand = require('ali-ons/lib/protocol/command/remoting_command');

class Failed extends Error {}

function check(good, text) {
  if (!good) {
    throw new Failed(typeof text === 'function' ? text() : text);
  }
}

function short(value) {
  const text = JSON.stringify(value);
  return text.length < 300 ? text : text.slice(0, 300) + '…';
}

function same(what, got, wanted) {
  const [a, b] = [[...got].sort(), [...wanted].sort()];
  check(JSON.stringify(a) === JSON.stringify(b), () => `${what}: got ${a.length} ${short(a)}, wanted ${b.length} ${short(b)}`);
}

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

/** Seconds until the condition held. */
async function wait(what, seconds, condition) {
  const start = Date.now();
  while (!(await condition())) {
    check(Date.now() - start < seconds * 1000, `after ${seconds} s still waiting for ${what}`);
    await sleep(10);
  }
  return (Date.now() - start) / 1000;
}

// The client looks its name servers up over HTTP unless it is given them; it wants this object all the same.
const httpclient = {
  async request() {
    throw new Error('the name servers are given');
  },
};

const quiet = { info() {}, debug() {}, warn() {}, error() {} };

/** Collects what consumers receive. */
class Sink {
  constructor() {
    this.seen = [];
  }

  get bodies() {
    return this.seen.map(m => m.text);
  }

  add(m) {
    const one = { topic: m.topic, tags: m.tags, keys: m.keys, properties: { ...m.properties }, text: m.body.toString(),
      queue: m.queueId, offset: Number(m.queueOffset), reconsumed: m.reconsumeTimes, at: Date.now() };
    this.seen.push(one);
    return one;
  }

  /** Waits for as many messages, then a moment for any too many. */
  async exactly(wanted, seconds = 30, settle = 500) {
    await wait(`${wanted.length} messages`, seconds, () => this.seen.length >= wanted.length);
    await sleep(settle);
    same('messages received', this.bodies, wanted);
  }
}

class Env {
  constructor(namesrv, stock, name, suffix) {
    Object.assign(this, { namesrv: namesrv.split(';'), stock, name, suffix });
    this.notes = [];
    this.closers = [];
    this.errors = [];
    this.instances = 0;
  }

  note(text) {
    this.notes.push(text);
  }

  fresh(base) {
    return `node-${this.name}-${base}-${this.suffix}`;
  }

  /** What every client of the case is made with: a short interval, so that no case waits for the next half minute. */
  options(more) {
    this.instances += 1;
    return { httpclient, nameSrv: this.namesrv, logger: quiet, pollNameServerInteval: 1000, heartbeatBrokerInterval: 1000,
      rebalanceInterval: 1000, persistConsumerOffsetInterval: 1000, instanceName: `${this.name}-${this.suffix}-${this.instances}`,
      ...more };
  }

  async close() {
    for (const client of this.closers.reverse()) {
      await client.close();
    }
  }

  onClose(client) {
    this.closers.push(client);
    // Without a listener an error of the client would end the process.
    client.on('error', e => this.errors.push(e.message));
    return client;
  }

  async producer(more) {
    if (this.shared && !more) {
      return this.shared;
    }
    const p = this.onClose(new Producer(this.options({ producerGroup: this.fresh('PG'), ...more })));
    await p.ready();
    if (!more) {
      this.shared = p;
    }
    return p;
  }

  async send(topic, body, { tags, keys, level, shardingKey, properties, producer } = {}) {
    const m = new Message(topic, tags === undefined ? '' : tags, body);
    if (keys) {
      m.keys = keys;
    }
    if (level) {
      m.delayTimeLevel = level;
    }
    if (shardingKey) {
      m.shardingKey = shardingKey;
    }
    Object.assign(m.properties, properties);
    const r = await (producer || (await this.producer())).send(m);
    check(r.sendStatus === 'SEND_OK', () => `send status ${r.sendStatus}`);
    return r;
  }

  async sendMany(topic, prefix, n) {
    const bodies = [];
    for (let i = 0; i < n; i++) {
      bodies.push(`${prefix}${i}`);
      await this.send(topic, bodies[i]);
    }
    return bodies;
  }

  /** A consumer from the first offset, unless `more` says otherwise. */
  async consumer(group, topic, handler, tags = '*', more = {}) {
    const c = this.onClose(new Consumer(this.options({ consumerGroup: group, consumeFromWhere: 'CONSUME_FROM_FIRST_OFFSET', ...more })));
    c.subscribe(topic, tags, async m => handler(m));
    await c.ready();
    return c;
  }

  async stop(client) {
    this.closers = this.closers.filter(c => c !== client);
    await client.close();
  }

  async api() {
    if (!this.remoting) {
      this.remoting = new MQClientAPI({ httpclient, nameSrv: this.namesrv, logger: quiet, connectTimeout: 5000 });
      this.onClose(this.remoting);
      await this.remoting.ready();
      const route = await this.remoting.getTopicRouteInfoFromNameServer('TBW102', 5000);
      this.broker = route.brokerDatas[0].brokerAddrs[0];
    }
    return this.remoting;
  }

  /** Whether each name server that can be reached knows the topic. */
  async isKnown(topic) {
    const api = await this.api();
    const codes = [];
    for (const address of this.namesrv) {
      try {
        codes.push((await api.invoke(address, RemotingCommand.createRequestCommand(105, { topic }), 5000)).code);
      } catch (e) {
        if (e.code !== 'ECONNREFUSED') {
          throw e;
        }
      }
    }
    check(codes.length > 0, 'no name server can be reached');
    return codes.every(code => code === 0);
  }

  /** A request by the client's own remoting layer; code, ext fields and body of the answer. */
  async request(code, fields, body) {
    const api = await this.api();
    const command = RemotingCommand.createRequestCommand(code, fields);
    if (body) {
      command.body = Buffer.from(body);
    }
    return api.invoke(this.broker, command, 5000);
  }

  /** A new topic that every name server knows. */
  async topic(queues, topic = this.fresh('T')) {
    const api = await this.api();
    await api.createTopic(this.broker, 'TBW102', { topicName: topic, readQueueNums: queues, writeQueueNums: queues, perm: 6,
      topicFilterType: 'SINGLE_TAG', topicSysFlag: 0, order: false }, 5000);
    await wait(`the route of ${topic}`, 20, () => this.isKnown(topic));
    return topic;
  }

  /** First offset and the one behind the last; [0, 0] where there is no such queue. */
  async bounds(topic, queueId) {
    const [low, high] = [await this.request(31, { topic, queueId }), await this.request(30, { topic, queueId })];
    return low.code || high.code ? [0, 0] : [Number(low.extFields.offset), Number(high.extFields.offset)];
  }

  /** A group's committed offset; -1 when it has none. */
  async committed(consumerGroup, topic, queueId) {
    const r = await this.request(14, { consumerGroup, topic, queueId, setZeroIfNotFound: false });
    return r.code ? -1 : Number(r.extFields.offset);
  }

  /** The first messages of a queue. */
  async pull(topic, queueId) {
    const api = await this.api();
    const r = await api.pullMessage(this.broker, { consumerGroup: this.fresh('READER'), topic, queueId, queueOffset: 0,
      maxMsgNums: 32, sysFlag: 4, commitOffset: 0, suspendTimeoutMillis: 0, subscription: '*', subVersion: 0 }, 5000);
    return r.msgFoundList;
  }
}

module.exports = { Env, Failed, Sink, check, same, sleep, wait, Consumer };
