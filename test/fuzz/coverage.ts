/**
 * One task: count which message met which state of a session or of a server connection, and name the pairs that were never met.
 *
 * The probes are put into the copy of the product by target.ts.
 */
import { REPLY } from '../../src/proxy/reply-queue.js';
import { BACKEND, CLIENT_RULES, FRONTEND } from '../../src/wire/codes.js';
import { FrameScanner } from '../../src/wire/frames.js';

/** Where a message of a client can arrive: the phases of client-session.ts, `waiting` by the steps of borrowing.ts. */
const PHASES = ['idle', 'gate', 'pool', 'setup', 'asking', 'attached', 'rerouting'];
const UNMET: readonly string[] = [
  'leaving, closed: the session hears nothing from its client any more',
  'writing, closing, opening: a statement or transaction on several shards; the tests of test/proxy/sharded*.test.ts go there',
  'exchange: a session that listens is moved to another server; test/proxy/session-state.test.ts goes there',
];
const HEADS = Object.entries(REPLY).filter(([name]) => !name.startsWith('say') && name !== 'copyEnd');
const OPENINGS = ['ssl', 'gssenc', 'cancel', 'startup'];

/** Pairs of a server's message and what it owes that no run need meet, by what it owes. */
const RARE = new Set(['injectedParse', 'injectedClose']);

class Coverage {
  readonly #counts = new Map<string, number>();
  readonly #scanners = new WeakMap<object, FrameScanner>();

  /** For the lines that target.ts puts into the product. */
  install(): void {
    Object.assign(globalThis, { fuzzProbe: this });
  }

  client(session: object, phase: string, step: string, chunk: Buffer): void {
    let scanner = this.#scanners.get(session);
    if (scanner === undefined) this.#scanners.set(session, (scanner = new FrameScanner(CLIENT_RULES)));
    scanner.feed(chunk);
    try {
      while (scanner.peek()) {
        if (!scanner.continued) this.#met(`client ${scanner.type.toString()} ${phase === 'waiting' ? step : phase}`);
        scanner.consume();
      }
    } catch {
      this.#met('client invalid');
    }
  }

  server(type: number, head: number): void {
    this.#met(`server ${type.toString()} ${head.toString()}`);
  }

  login(type: number): void {
    this.#met(`login ${type.toString()}`);
  }

  opening(kind: string): void {
    this.#met(`opening ${kind}`);
  }

  #met(what: string): void {
    this.#counts.set(what, (this.#counts.get(what) ?? 0) + 1);
  }

  #of(what: string): number {
    return this.#counts.get(what) ?? 0;
  }

  /** The tables, and what is missing in them. */
  report(): { readonly lines: readonly string[]; readonly holes: readonly string[] } {
    const lines: string[] = [];
    const holes: string[] = [];
    const table = (
      title: string,
      side: string,
      types: readonly (readonly [string, number])[],
      states: readonly Column[],
    ): void => {
      lines.push(
        '',
        `| ${title} | ${states.map(({ name }) => name).join(' | ')} |`,
        `|---|${'---:|'.repeat(states.length)}`,
      );
      for (const [name, type] of types) {
        const counts = states.map((state) => this.#of(`${side} ${type.toString()} ${state.key}`));
        lines.push(`| ${name} | ${counts.join(' | ')} |`);
        for (const [at, state] of states.entries())
          if (counts[at] === 0 && !state.rare) holes.push(`${title} ${name} in ${state.name}`);
      }
    };
    const sent = Object.entries(FRONTEND).filter(([name]) => name !== 'password');
    table(
      'client sends',
      'client',
      sent,
      // A client whose read is shared seldom sends more meanwhile.
      [...PHASES, 'sharing'].map((name) => ({ name, key: name, rare: name === 'sharing' })),
    );
    table(
      'server sends',
      'server',
      Object.entries(BACKEND),
      HEADS.map(([name, code]) => ({ name, key: code.toString(), rare: RARE.has(name) })),
    );
    lines.push('', ...OPENINGS.map((kind) => `opening ${kind}: ${this.#of(`opening ${kind}`).toString()}`));
    for (const kind of OPENINGS) if (this.#of(`opening ${kind}`) === 0) holes.push(`opening ${kind}`);
    const [right, all] = [
      this.#of(`login ${FRONTEND.password.toString()}`),
      [...this.#counts].filter(([what]) => what.startsWith('login ')),
    ];
    lines.push(
      `in a login: password ${right.toString()}, others ${all.reduce((sum, [, count]) => sum + count, -right).toString()}`,
    );
    if (right === 0 || all.length < 2) holes.push('a password and something in its place');
    lines.push(
      `messages that are none: ${this.#of('client invalid').toString()}`,
      '',
      ...UNMET.map((line) => `not met here: ${line}`),
    );
    return { lines, holes };
  }
}

interface Column {
  readonly name: string;
  readonly key: string;
  readonly rare: boolean;
}

export const coverage = new Coverage();
