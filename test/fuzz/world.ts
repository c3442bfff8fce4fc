/**
 * One task: play one stream against the proxy, beside a client that does nothing wrong, and say which promise was broken.
 *
 * Promises: nothing is thrown that nobody catches; the good client gets the answers that a server gives it directly; nobody gets a
 * mark of somebody else; what an honest server says arrives as messages; and in the end nothing is left: no session, no socket, no timer, no
 * server that is owned, owes answers or is waited for.
 */
import { parseConfig } from '../../src/config/load.js';
import type { WatchedProxy } from '../../src/proxy/contract.js';
import type { Pool } from '../../src/proxy/pool.js';
import { Random } from '../history/random.js';
import { reseed } from './certain-crypto.js';
import { saidLateBy, toldBy } from './lies.js';
import { createServer, wire, type MemorySocket } from './memory-net.js';
import { Player, type Pace } from './player.js';
import { StandIn, type StandInContext } from './stand-in.js';
import { ANY_MARK, ENTRANCES, keyOf, markOf, type Entrance, type Lie, type LieKind, type Stream } from './stream.js';
import type { Target } from './target.js';
import type { VirtualClock } from './virtual-clock.js';

const SERVER_PORT = 5432;
const TURNS_MAX = 100_000;
/** Longer than any wait of the proxy's that can come in a stream. */
const PATIENCE_MS = 300_000;
const REROUTE_MS = 20;
/** Opened by a proxy in one stream: each of a few clients tries a few times for each of its statements. */
const SERVERS_MAX = 300;
/** A proxy does nothing by itself any more. */
const STARTED_MS = 1_000;
const MARKS_KEPT = 4_096;
/** Lies that add something to what is true. */
const TOO_MUCH = new Set<LieKind>(['double', 'garbage', 'extra', 'late']);
/** the last message of a client whose server closed the connection */
const SERVER_LOST = /"E[^\n]*C08006[^\n]*"$/;

type Opened = WatchedProxy & {
  readonly left: { readonly sessions: number; readonly sockets: number };
  readonly routes: { readonly allPools: readonly Pool[] };
};

/** What a server that is asked directly answers to a stream of the corpus. */
export interface Known {
  readonly stream: Stream;
  readonly answers: string;
  readonly pace: Pace;
}

export class World implements StandInContext {
  readonly running = new Map<number, StandIn>();
  readonly #clock: VirtualClock;
  readonly #proxies = new Map<Entrance, Opened>();
  /** pristine streams of the corpus with the answers of a server that is asked directly */
  readonly #known: ReadonlyMap<string, Known>;
  readonly #marks: string[] = [];
  #lies: readonly Lie[] = [];
  #liesTo = '';
  #answer = 0;
  #servers = 0;
  #restTimers = 0;
  #marked = 0;
  #refusals = 0;
  #players: readonly Player[] = [];
  readonly #problems: string[] = [];

  /** All there was before is gone: the same streams in it give the same run. @param known of ask() */
  constructor(clock: VirtualClock, known: ReadonlyMap<string, Known> = new Map()) {
    this.#clock = clock;
    this.#known = known;
    clock.reset();
    wire.reset();
    reseed();
    const server = createServer({}, (socket: MemorySocket) => {
      this.#servers += 1;
      return new StandIn(socket, this, this.#servers);
    });
    server.listen({ port: SERVER_PORT }, () => undefined);
  }

  /** Asks the server directly what belongs to each stream of the corpus. */
  async ask(corpus: readonly Stream[]): Promise<ReadonlyMap<string, Known>> {
    const known = new Map<string, Known>();
    for (const stream of corpus.filter(({ name }) => !name.startsWith('odd-'))) {
      const player = new Player(SERVER_PORT, stream.steps, this.#nextMark(), () => undefined);
      await this.#play([player], new Random(stream.seed));
      known.set(stream.name, { stream, answers: player.answers(), pace: player.pace });
    }
    return known;
  }

  /** Starts a proxy at each entrance. */
  async open(target: Target): Promise<void> {
    for (const [entrance, port] of Object.entries(ENTRANCES) as [Entrance, number][]) {
      const proxy = await target.startProxy({
        config: configOf(entrance, port),
        hooks: { onFenceRefusal: () => this.#reroute() },
        logger: {
          info: () => undefined,
          warn: () => undefined,
          error: (fields, message) => {
            // What a client is told of a server that goes away is no defect; what nobody foresaw is.
            if (!('code' in fields) || fields.code === 'internal') this.problem(`${message} ${JSON.stringify(fields)}`);
          },
        },
        gateWaitMs: PATIENCE_MS / 2,
      });
      this.#proxies.set(entrance, proxy as Opened);
    }
    // They compute what they compare passwords with.
    while (this.#clock.nowMs < STARTED_MS) {
      this.#clock.advance();
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    this.#restTimers = this.#clock.size;
  }

  /** What all clients of the stream last run were sent, and when it was over. */
  get heard(): string {
    const messages = this.#players.map((player) => Buffer.concat(player.messages).toString('latin1'));
    return `${messages.join('|')}@${this.#clock.nowMs.toString()}`;
  }

  /** For what nobody caught. */
  problem(what: string): void {
    this.#problems.push(what);
  }

  lie(messages: readonly Buffer[], mark: string | null, late: Buffer[]): readonly Buffer[] | 'close' {
    if (late.length > 0 && mark !== this.#liesTo) return [...late.splice(0), ...messages];
    if (this.#lies.length === 0 || (mark !== null && mark !== this.#liesTo)) return messages;
    const answer = mark === null ? -1 : this.#answer++;
    let told = messages;
    for (const lie of this.#lies.filter((each) => each.answer === answer && told.length > 0)) {
      const said = saidLateBy(lie);
      if (said !== null && answer >= 0) late.push(said);
      const changed = toldBy(lie, told);
      if (changed === 'close') return changed;
      told = changed;
    }
    return told;
  }

  /** @returns which promise was broken; null: none */
  async run(stream: Stream): Promise<string | null> {
    const random = new Random(stream.seed, 1);
    this.#problems.length = 0;
    const serversBefore = this.#servers;
    const gate = (close: boolean): void => {
      for (const proxy of this.#proxies.values())
        for (const database of ['prod', 'kept'])
          if (close) proxy.gate(database).close('cutover');
          else proxy.gate(database).open('cutover');
    };
    const beside = stream.at === 'shared' ? 'shared' : 'trust';
    const own = stream.lies.length === 0 && stream.at === beside ? this.#ownOf(stream.name) : undefined;
    const fuzzed = new Player(ENTRANCES[stream.at], stream.steps, this.#nextMark(), gate, own?.pace);
    this.#lies = stream.lies;
    this.#liesTo = fuzzed.mark;
    this.#answer = 0;
    const known = [...this.#known.values()];
    const good = known[random.below(known.length)];
    const witness = (pace = good?.pace ?? null): Player[] =>
      good === undefined
        ? []
        : [new Player(ENTRANCES[beside], good.stream.steps, this.#nextMark(), () => undefined, pace)];
    const honest = stream.lies.length === 0;
    const saysTooMuch = stream.lies.every(({ kind }) => TOO_MUCH.has(kind));
    const shared = beside === 'shared';
    // What those beside a server that lies may get, nobody knows but that it is not for others.
    const pace = honest ? undefined : null;
    const witnesses = [...(honest || shared ? witness(pace) : []), ...(shared ? witness(pace) : [])];
    const players = [fuzzed, ...witnesses];
    let judged: readonly Player[] = honest ? witnesses : [];
    this.#players = players;
    let rest = await this.#play(players, random, () => {
      if (fuzzed.done) gate(false);
    });
    this.#lies = [];
    if (rest && !honest) {
      // All that it says too much has come: it is found out before the good client has it. Whatever else it has told nobody can know.
      if (!saysTooMuch) for (const proxy of this.#proxies.values()) proxy.reconnect();
      const after = witness();
      players.push(...after);
      judged = after;
      rest = await this.#play(after, random);
    }
    for (const standIn of this.running.values()) standIn.forgetLate();
    const opened = this.#servers - serversBefore;
    if (opened > SERVERS_MAX) this.problem(`${opened.toString()} servers were opened`);
    const [caught] = this.#problems;
    if (caught !== undefined) return caught;
    const unrest = rest ? null : `never at rest: ${this.#restProblem() ?? 'a client waits'}`;
    return (
      this.#checked(fuzzed, own, judged, good, honest) ??
      this.#crossTalk(players) ??
      unrest ??
      (honest && fuzzed.garbled ? 'what a client got are not messages' : null)
    );
  }

  /** The stream of the corpus that one is, when it was left as it is. */
  #ownOf(name: string): Known | undefined {
    return this.#known.get(name.endsWith('=') ? name.replace(/#.*$/, '') : name);
  }

  #checked(
    fuzzed: Player,
    own: Known | undefined,
    witnesses: readonly Player[],
    good: Known | undefined,
    honest: boolean,
  ): string | null {
    const expected: readonly (readonly [string, Player, Known | undefined])[] = [
      ...witnesses.map((witness) => ['the good client', witness, good] as const),
      ['a client as it was recorded', fuzzed, own],
    ];
    for (const [who, player, known] of expected) {
      if (known === undefined || player.answers() === known.answers) continue;
      // A server that has lied may be found out by who has it next: he is told, and nothing that is not true.
      if (known === good && !honest && known.answers.startsWith(player.answers().replace(SERVER_LOST, ''))) continue;
      return `${who} (${known.stream.name}) got other answers\n${difference(known.answers, player.answers())}`;
    }
    return null;
  }

  #crossTalk(players: readonly Player[]): string | null {
    for (const { mark, messages } of players) {
      const marks = new Set(Buffer.concat(messages).toString('latin1').match(ANY_MARK));
      marks.delete(mark);
      const foreign = [...marks].find((each) => this.#marks.includes(each));
      if (foreign !== undefined) return `cross-talk: ${mark} got what was for ${foreign}`;
    }
    return null;
  }

  /**
   * Plays until every step was made and all is at rest.
   *
   * @param quiet called when nothing is under way and nobody can go on
   */
  async #play(players: readonly Player[], random: Random, quiet: () => void = () => undefined): Promise<boolean> {
    const begunMs = this.#clock.nowMs;
    for (let turn = 0; turn < TURNS_MAX; turn += 1) {
      const ready = wire.ready();
      const able = players.filter((player) => player.mayStep(ready.length === 0));
      const choice = random.below(ready.length + able.length);
      if (choice < ready.length) ready[choice]?.deliver(bytesMax(random));
      else if (able.length > 0) able[choice - ready.length]?.step();
      else {
        quiet();
        const over = players.every((player) => player.done && player.closed);
        if (over && wire.ready().length === 0 && this.#restProblem() === null) return true;
        for (const player of players) if (player.done) player.leave();
        if (wire.ready().length === 0) this.#clock.advance();
        if (this.#clock.nowMs - begunMs > PATIENCE_MS) return false;
      }
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    return false;
  }

  #restProblem(): string | null {
    for (const proxy of this.#proxies.values()) {
      const { left, routes } = proxy;
      if (left.sessions + left.sockets > 0) {
        const phases = proxy.clients().map(({ state, database }) => `${database} ${state}`);
        return `${left.sessions.toString()} sessions (${phases.join(', ')}), ${left.sockets.toString()} sockets`;
      }
      for (const pool of routes.allPools) {
        if (pool.waitingCount + pool.connectingCount > 0) return 'somebody waits for a server';
        if (pool.idleCount !== pool.serverCount) return 'a server is not idle';
        for (const server of pool.servers)
          if (server.owner !== null || !server.idle || server.cancelsInFlight !== 0)
            return 'a server is owned or owes answers';
      }
    }
    const timers = this.#clock.size - this.#restTimers;
    return timers === 0 ? null : `${timers.toString()} timers`;
  }

  async #reroute(): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, REROUTE_MS));
    this.#refusals += 1;
    if (this.#refusals % 5 === 0) throw new Error('nobody knows which side serves');
  }

  markWith(key: number): string | undefined {
    return this.#marks.find((mark) => Number(keyOf(mark)) === key);
  }

  #nextMark(): string {
    this.#marked += 1;
    const mark = markOf(this.#marked);
    this.#marks.push(mark);
    if (this.#marks.length > MARKS_KEPT) this.#marks.splice(0, MARKS_KEPT / 2);
    return mark;
  }
}

function difference(wanted: string, got: string): string {
  return `wanted:\n${wanted.slice(0, 2_000)}\ngot:\n${got.slice(0, 2_000)}`;
}

function bytesMax(random: Random): number {
  const size = random.below(8);
  if (size === 0) return 1 + random.below(6);
  return size === 1 ? 1 + random.below(100) : Number.POSITIVE_INFINITY;
}

function configOf(entrance: Entrance, port: number): ReturnType<typeof parseConfig> {
  const databases = ['prod', 'kept'].map(
    (name) => `[[databases]]\nname = "${name}"\nhost = "127.0.0.1"\nport = ${SERVER_PORT.toString()}\n`,
  );
  const text = `[general]
host = "127.0.0.1"
port = ${port.toString()}
auth_type = "${entrance === 'shared' ? 'trust' : entrance}"
pipelining = "${entrance === 'shared' ? 'auto' : 'off'}"
default_pool_size = 1
min_pool_size = 0
tls_verify = "disabled"
client_login_timeout = 10000
checkout_timeout = ${(2 * PATIENCE_MS).toString()}
prepared_statements_limit = 3
[admin]
password = "admin secret"
${databases.join('')}`;
  const user = (database: string, mode: string): string =>
    `[[users]]\nname = "app"\ndatabase = "${database}"\npassword = "secret"\npooler_mode = "${mode}"\n`;
  const users = user('prod', 'transaction') + user('kept', 'session');
  return parseConfig({ file: 'pgdog.toml', text }, { file: 'users.toml', text: users }, { environment: {} });
}
