/** One seeded world: a server, brokers, writers and relays, a while in which things go wrong, and one in which they heal. */
import type * as settingsModule from '../../src/core/relay/settings.js';
import type * as relayModule from '../../src/core/relay/supervisor.js';
import { toError } from '../../src/core/errors.js';
import { isBatchPublisher } from '../../src/core/contracts/publisher.js';
import { chanceOf, type Chance } from './chance.js';
import { Process, Timeline, type Blow, type Fate } from './clock.js';
import { Faults, type Note, type Often } from './faults.js';
import { modelStore } from './feed.js';
import { Network } from './network.js';
import { nameOf, Oracle, type PromiseName, type Violation } from './oracle.js';
import { planOf, type DestinationPlan, type Plan } from './plan.js';
import { Broker, overheard, PUBLISH_TIMEOUT, PUBLISHERS, type PublisherFlaw } from './publisher.js';
import { Destination, Server, type Flaw, type Row } from './server.js';

/** The modules of the engine: the real ones, or broken ones. */
export interface Engine {
  readonly runRelay: typeof relayModule.runRelay;
  readonly relaySettings: typeof settingsModule.relaySettings;
}

export interface WorldOptions {
  readonly engine: Engine;
  readonly storeFlaw?: Flaw;
  readonly publisherFlaw?: PublisherFlaw;
  /** What falls on the first relay, beside what the seed decides: at which of its points. */
  readonly blow?: { readonly point: number; readonly blow: Blow };
  /** Faults of the seed's choice are left out. */
  readonly quiet?: boolean;
  readonly often?: Often;
  readonly note?: Note;
}

/** How long a world may take to finish when nothing goes wrong any more, and a relay to stop. Virtual milliseconds. */
const HEALED_LIMIT = 60_000;
const STOP_LIMIT = 5_000;

interface Station {
  readonly plan: DestinationPlan;
  readonly to: Destination;
  readonly broker: Broker;
  readonly relays: Relay[];
}

interface Relay {
  readonly process: Process;
  readonly stop: AbortController;
  ended: boolean;
}

export class World {
  readonly seed: number;
  readonly plan: Plan;
  readonly timeline = new Timeline();
  readonly oracle: Oracle;
  readonly faults: Faults;
  /** Fingerprints of the states that it was in. */
  readonly states = new Set<string>();
  /** Points of the first relay, to know where a blow can fall. */
  firstRelay: Process | undefined;
  isOver = false;
  readonly #options: WorldOptions;
  readonly #chance: Chance;
  readonly #network: Network;
  readonly #server: Server;
  readonly #stations: Station[];
  readonly #note: Note | undefined;
  #stopping = false;
  #relays = 0;

  constructor(seed: number, options: WorldOptions) {
    this.seed = seed;
    this.#options = options;
    this.#chance = chanceOf(seed);
    const chance = this.#chance;
    this.plan = planOf(chance, options.quiet === true);
    const { plan, timeline } = this;
    const { note: told } = options;
    const note: Note | undefined =
      told &&
      ((line) => {
        told(`${timeline.now.toFixed(1).padStart(8)} ${line}`);
      });
    note?.(`the plan of seed ${seed}: ${JSON.stringify({ ...plan, possible: [...plan.possible] }, null, 1)}`);
    this.#note = note;
    this.faults = new Faults(chance, plan.possible, options.often, note);
    this.oracle = new Oracle({ attempts: plan.maxAttempts, latency: plan.latency }, () => timeline.now);
    this.#network = new Network(timeline, chance, this.faults, note);
    const { oracle, faults } = this;
    this.#server = new Server({ lease: plan.lease, flaw: options.storeFlaw, now: () => timeline.now, oracle });
    oracle.log = this.#server.log;
    this.#stations = plan.destinations.map((each, i) => {
      const to = new Destination(`d${i + 1}`, plan.partitions, each.topics);
      return { plan: each, to, broker: new Broker({ to, oracle, faults, chance }), relays: [] };
    });
    this.#begin();
  }

  /** What makes it another world than its seed alone would. */
  get kind(): string {
    const { blow } = this.#options;
    return blow === undefined ? '' : `${blow.blow.kind} at point ${blow.point}`;
  }

  fail(promise: PromiseName, what: string): void {
    this.oracle.fail(promise, what);
    this.isOver = true;
  }

  get violation(): Violation | undefined {
    return this.oracle.violation;
  }

  /** Lets one thing happen. */
  step(): void {
    try {
      this.timeline.step();
    } catch (error) {
      this.oracle.fail('no errors of its own', String(error));
    }
    if (this.violation) this.isOver = true;
  }

  #begin(): void {
    const { plan, timeline } = this;
    const chance = this.#chance;
    for (const station of this.#stations) {
      for (let i = 0; i < station.plan.relays; i++)
        this.#at(chance.between(0, 60), () => {
          this.#start(station);
        });
      this.#disturb(station);
    }
    for (let i = 0; i < plan.transactions; i++)
      this.#at(chance.between(0, plan.span), () => {
        this.#write();
      });
    if (this.faults.hits('store: outage')) {
      this.#at(
        chance.between(0, plan.span),
        () => (this.#network.outageUntil = timeline.now + chance.between(50, 900)),
      );
    }
    if (this.faults.hits('store: clock jumps')) {
      this.#at(chance.between(0, plan.span), () => (this.#server.offset += chance.between(50, 2 * plan.lease)));
    }
    this.#at(plan.span, () => {
      this.#heal();
    });
    this.#observe();
  }

  /** What befalls a destination and its relays, whatever they do. */
  #disturb(station: Station): void {
    const { plan, timeline, faults } = this;
    const chance = this.#chance;
    const sometime = () => chance.between(0, plan.span);
    if (faults.hits('broker: never heals')) station.broker.outageUntil = plan.span;
    else if (faults.hits('broker: outage')) {
      this.#at(sometime(), () => (station.broker.outageUntil = timeline.now + chance.between(50, 600)));
    }
    if (faults.hits('store: lease is revoked')) {
      this.#at(sometime(), () => {
        this.#server.revoke(station.to, chance.between(0, plan.partitions - 1));
      });
    }
    if (faults.hits('relay: joins'))
      this.#at(sometime(), () => {
        this.#start(station);
      });
    if (faults.hits('relay: leaves'))
      this.#at(sometime(), () => {
        this.#leave(station.relays[0]);
      });
  }

  /** A transaction of a writer. */
  #write(): void {
    const { plan, timeline, oracle } = this;
    const chance = this.#chance;
    const { log } = this.#server;
    for (let i = chance.between(1, plan.perTransaction); i > 0; i--) {
      const seq = log.length + 1;
      const key = chance.between(0, plan.keys);
      const row: Row = {
        seq,
        key: key === 0 ? undefined : `k${key}`,
        topic: chance.pick(['a', 'b']),
        partition: (key === 0 ? seq : key) % plan.partitions,
        committedAt: timeline.now,
      };
      log.push(row);
      oracle.committed(row);
      this.#note?.(`${nameOf(row)} is committed`);
    }
    for (const { to } of this.#stations) {
      for (const wake of [...to.sleeping]) if (!this.faults.hits('wake-up is lost')) wake();
    }
  }

  /** A message of each topic, which nothing is wrong with. */
  #trickle(): void {
    const { log } = this.#server;
    for (const topic of ['a', 'b']) {
      const seq = log.length + 1;
      const row = {
        seq,
        key: undefined,
        topic,
        partition: this.#chance.between(0, this.plan.partitions - 1),
        committedAt: this.timeline.now,
      };
      log.push(row);
    }
  }

  #start(station: Station): void {
    if (this.#stopping) return;
    const { engine, publisherFlaw } = this.#options;
    const { timeline, oracle, faults, plan } = this;
    const {
      to,
      broker,
      plan: { publisher, messenger, inFlight },
    } = station;
    const chance = this.#chance;
    const name = `r${++this.#relays}`;
    this.#note?.(`${name} starts for ${to.name}`);
    const process = new Process(name, timeline, chance, this.#fate(this.#relays === 1));
    this.firstRelay ??= process;
    const relay: Relay = { process, stop: new AbortController(), ended: false };
    station.relays.push(relay);
    const network = this.#network;
    const store = modelStore({ server: this.#server, network, oracle, process, to, inFlight });
    const form = PUBLISHERS[publisher]({
      broker,
      to,
      oracle,
      faults,
      chance,
      network,
      timeline,
      process,
      calm: plan.calm,
      flaw: publisherFlaw,
      note: this.#note,
    });
    const errorLogger = {
      error: (error: Error) => {
        this.#note?.(`${name} logs ${error.message}`);
        this.#heard(error);
      },
    };
    const options = engine.relaySettings(
      store,
      isBatchPublisher(form) ? overheard(form, oracle) : form,
      { ...messenger, destination: to.name, publishTimeout: PUBLISH_TIMEOUT, errorLogger },
      process.clock,
    );
    // A publisher without a batch form got one from the engine.
    const heard = isBatchPublisher(form) ? options : { ...options, publisher: overheard(options.publisher, oracle) };
    engine.runRelay({ ...heard, relay: name }, relay.stop.signal).then(
      () => {
        relay.ended = true;
        if (!relay.stop.signal.aborted) oracle.fail('no errors of its own', `${name} ended, and was not told to`);
      },
      (error: unknown) => {
        relay.ended = true;
        this.#heard(error);
        this.#at(chance.between(10, 200), () => {
          this.#start(station);
        });
      },
    );
  }

  /** An error that the engine tells of: those that a mistake in it would make are not to be among them. */
  #heard(thrown: unknown): void {
    for (let each: unknown = thrown; each instanceof Error; each = each.cause) {
      if (/^(Type|Reference|Range|Syntax)Error$/.test(each.name)) {
        this.oracle.fail('no errors of its own', each.stack ?? each.message);
      }
    }
  }

  /** What falls on a relay at its points. */
  #fate(isFirst: boolean): Fate {
    const { faults, plan } = this;
    const chance = this.#chance;
    const { blow } = this.#options;
    const past = () => plan.lease + chance.between(0, 2 * plan.lease);
    return (point) => {
      if (isFirst && point === blow?.point) return blow.blow;
      if (faults.over) return undefined;
      if (faults.hits('relay: crash')) return { kind: 'crash' };
      if (faults.hits('relay: freezes')) return { kind: 'freeze', ms: chance.between(5, 100), suspended: false };
      if (faults.hits('relay: freezes past its lease')) return { kind: 'freeze', ms: past(), suspended: false };
      if (faults.hits('relay: is suspended past its lease')) return { kind: 'freeze', ms: past(), suspended: true };
      if (faults.hits('relay: clock jumps')) return { kind: 'jump', ms: chance.between(10, 2 * plan.lease) };
      return undefined;
    };
  }

  #leave(relay: Relay | undefined): void {
    relay?.process.give('network', () => {
      relay.stop.abort(new Error('told to stop'));
    });
  }

  #heal(): void {
    this.faults.over = true;
    this.#network.outageUntil = 0;
    for (const { broker } of this.#stations) broker.outageUntil = 0;
    const limit = this.timeline.now + HEALED_LIMIT;
    const healedAt = this.#server.log.length;
    const look = () => {
      const left = this.#stations.flatMap(({ to }) => this.oracle.left(to).map(({ seq }) => `${seq} at ${to.name}`));
      // Whether refusals are the messages' own is known when others of their topic get through.
      const isOld = this.#stations.some(({ to }) => this.oracle.left(to).some(({ seq }) => seq <= healedAt));
      if (isOld && this.timeline.now > limit - HEALED_LIMIT / 2 && this.#server.log.length < healedAt + 200)
        this.#trickle();
      if (left.length === 0) this.#conclude();
      else if (this.timeline.now < limit) this.#at(20, look);
      else {
        const some = left.length > 10 ? `${left.slice(0, 10).join()} and ${left.length - 10} more` : left.join();
        this.oracle.fail('no stall', `${HEALED_LIMIT} ms after everything healed these are left: ${some}`);
      }
    };
    look();
  }

  /** Restarts what crashed, as a supervisor does, and takes note of the state that everything is in. */
  #observe(): void {
    for (const station of this.#stations) {
      const up = station.relays.filter(({ process, ended }) => !process.crashed && !ended);
      const wanted = this.faults.over ? 1 : station.plan.relays;
      if (up.length < wanted && this.timeline.now > 60 && !up.some(({ stop }) => stop.signal.aborted)) {
        this.#start(station);
      }
      this.states.add(this.#stateOf(station, up));
    }
    if (!this.#stopping)
      this.#at(25, () => {
        this.#observe();
      });
  }

  #stateOf({ to, broker }: Station, up: readonly Relay[]): string {
    const { now } = this.#server;
    const parked = [...to.parked.values()];
    const owners = to.partitions.map(({ owner, expiresAt }) =>
      owner === undefined ? '-' : expiresAt > now ? '+' : '?',
    );
    const lag = this.#server.log.length - Math.min(...to.partitions.map(({ cursor }) => cursor));
    return [
      up.length,
      up.filter(({ process }) => process.frozen).length,
      to.relays.size,
      owners.sort().join(''),
      Math.ceil(Math.log2(lag + 1)),
      Math.min(3, parked.filter(({ dead }) => !dead).length),
      Math.min(2, parked.filter(({ dead }) => dead).length),
      Math.min(2, parked.filter(({ blocked }) => blocked).length),
      broker.outageUntil > this.timeline.now,
      this.#network.outageUntil > this.timeline.now,
    ].join();
  }

  #conclude(): void {
    this.#stopping = true;
    for (const { to, relays } of this.#stations) {
      this.oracle.concluded(to);
      for (const relay of relays) this.#leave(relay);
    }
    const limit = this.timeline.now + STOP_LIMIT;
    const look = () => {
      const running = this.#stations.flatMap(({ relays }) =>
        relays.filter(({ process, ended }) => !process.crashed && !ended),
      );
      if (running.length === 0) this.isOver = true;
      else if (this.timeline.now < limit) this.#at(20, look);
      else
        this.oracle.fail(
          'stops when told',
          `${running.map(({ process }) => process.name).join()} within ${STOP_LIMIT} ms`,
        );
    };
    this.#at(20, look);
  }

  #at(ms: number, run: () => void): void {
    this.timeline.after(ms, () => {
      try {
        run();
      } catch (error) {
        this.oracle.fail('no errors of its own', toError(error).stack ?? 'an error');
      }
    });
  }
}
