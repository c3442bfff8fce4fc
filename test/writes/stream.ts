/** One task: send generated writes to a sharded database and to one PostgreSQL, one after the other, and hold the answers against each other. */
import { Random } from '../history/random.js';
import { CHANGES } from './changes.js';
import { COPIES } from './copies.js';
import type { Answer, Exchange, Sent } from './exchange.js';
import { INSERTS } from './inserts.js';
import { Maker } from './maker.js';
import { MISTAKES } from './mistakes.js';
import { MOVES } from './moves.js';
import { formatsOf, withConstants, withParameters } from './sql.js';
import { TRANSACTIONS } from './transactions.js';
import type { Form, Make, Statement, Step, Unit } from './unit.js';

/** Every class must be answered. */
export const CLASSES: Readonly<Record<string, Make>> = {
  ...INSERTS,
  ...CHANGES,
  ...MOVES,
  ...COPIES,
  ...TRANSACTIONS,
  ...MISTAKES,
};
/** Of these classes every unit has an error. */
export const FAILING: ReadonlySet<string> = new Set([
  ...Object.keys(MISTAKES),
  'errors in a transaction',
  'errors over several shards',
]);

/** What became of the units of a class. */
export interface Counts {
  done: number;
  /** with the same error on both */
  failed: number;
  refused: number;
}

export interface Told {
  readonly counts: Map<string, Counts>;
  /** the reasons of refusals, with how many there were */
  readonly reasons: Map<string, number>;
  statements: number;
  readonly different: string[];
}

export function nothingTold(): Told {
  return { counts: new Map(), reasons: new Map(), statements: 0, different: [] };
}

/** Of all units. */
export function refusedShare({ counts }: Told): number {
  const all = [...counts.values()];
  const refused = all.reduce((sum, count) => sum + count.refused, 0);
  return refused / all.reduce((sum, { done, failed }) => sum + done + failed, refused);
}

/** In one text: of each class, of each reason. */
export function summaryOf({ counts, reasons, statements }: Told): string {
  const classes = [...counts].map(
    ([name, { done, failed, refused }]) => `${name}: ${[done, failed, refused].join(' / ')}`,
  );
  const refusals = [...reasons]
    .sort(([, a], [, b]) => b - a)
    .map(([reason, count]) => `${count.toString()}: ${reason}`);
  const units = [...counts.values()].reduce((sum, { done, failed, refused }) => sum + done + failed + refused, 0);
  return [
    `${units.toString()} units, ${statements.toString()} statements; done / failed alike / refused:`,
    ...classes,
    'refused:',
    ...refusals,
  ].join('\n');
}

/** SQLSTATE of a refusal with a reason of docs/routing.md. */
const REFUSED = '0A000';

export class WriteStream {
  readonly #here: Exchange;
  readonly #whole: Exchange;
  readonly #told: Told;
  readonly #isRefusal: (sent: Sent, answer: Answer) => boolean;
  readonly #seed: number;
  #round = 0;

  /** @param isRefusal of what is refused beside {@link REFUSED} */
  constructor(
    here: Exchange,
    whole: Exchange,
    told: Told,
    seed: number,
    isRefusal: (sent: Sent, answer: Answer) => boolean = () => false,
  ) {
    this.#here = here;
    this.#whole = whole;
    this.#told = told;
    this.#seed = seed;
    this.#isRefusal = isRefusal;
  }

  /** One unit of each class. @param between called after each unit; `plain`: it was done on both, without an error */
  async round(between: (plain: boolean) => Promise<boolean>): Promise<void> {
    this.#round += 1;
    for (const [index, [name, make]] of Object.entries(CLASSES).entries()) {
      const random = new Random(this.#seed * 100_003 + this.#round, index);
      const outcome = await this.#unit(name, make(new Maker(random)), random);
      const counts = this.#told.counts.get(name) ?? { done: 0, failed: 0, refused: 0 };
      counts[outcome] += 1;
      this.#told.counts.set(name, counts);
      if (!(await between(outcome === 'done'))) this.#different(name, 'what is stored', [], []);
      if (this.#told.different.length > 0) return;
    }
  }

  async #unit(name: string, unit: Unit, random: Random): Promise<keyof Counts> {
    let outcome: keyof Counts = 'done';
    let open = false;
    for (const step of unit) {
      const sent = sentOf(step, random);
      this.#told.statements += 1;
      const actual = await this.#here.send(sent);
      open = actual.status !== 'I';
      if (actual.error !== null && (actual.error.code === REFUSED || this.#isRefusal(sent, actual))) {
        this.#refused(actual.error.message);
        if (actual.parsed) await this.#whole.learn(sent);
        outcome = 'refused';
        break;
      }
      const expected = await this.#whole.send(sent);
      if (expected.error !== null) outcome = 'failed';
      if (expected.lines.join('\n') !== actual.lines.join('\n'))
        this.#different(name, shown(sent), expected.lines, actual.lines);
    }
    // Left open by a text that failed in its middle, or by what was refused.
    if (open) for (const each of [this.#here, this.#whole]) await each.run('ROLLBACK');
    return outcome;
  }

  #refused(message: string): void {
    const reason = message.replace(/^.*?"prod"[^:]*: /, '').replace(/\b\d+\b/g, 'n');
    this.#told.reasons.set(reason, (this.#told.reasons.get(reason) ?? 0) + 1);
  }

  #different(name: string, what: string, expected: readonly string[], actual: readonly string[]): void {
    const where = `seed ${this.#seed.toString()}, round ${this.#round.toString()}, ${name}: ${what}`;
    this.#told.different.push(`${where}\n one database: ${expected.join('\n  ')}\n here: ${actual.join('\n  ')}`);
  }
}

function shown({ form, text, values, formats, types, binaryRows, apart, pieces }: Sent): string {
  const bytes = values.map((value, at) =>
    value === null ? 'NULL' : value.toString(formats[at] === 1 ? 'hex' : 'utf8'),
  );
  const copied = pieces === null ? '' : Buffer.concat(pieces).toString('latin1');
  return JSON.stringify({ form, text, bytes, formats, types, binaryRows, apart, copied });
}

const FORMS: readonly [Form, ...Form[]] = ['simple', 'extended', 'extended', 'prepared'];

function sentOf(step: Step, random: Random): Sent {
  const none = { values: [], formats: [], types: [], binaryRows: false, apart: false, pieces: null };
  if (step.kind === 'copy') {
    const pieces = step.data === null ? null : inPieces(step.data, random.pick([1, 5, 40, 100_000]));
    return { ...none, form: 'copy', text: step.text, pieces, ordered: true };
  }
  const form = step.form ?? random.pick([...FORMS]);
  const ordered = step.ordered === true || withConstants(step.sql).includes('ORDER BY');
  if (form === 'simple') return { ...none, form, text: noisy(withConstants(step.sql), random), ordered };
  return { ...withValues(step, random), form, ordered, pieces: null };
}

function withValues(
  { sql }: Statement,
  random: Random,
): Pick<Sent, 'text' | 'values' | 'formats' | 'types' | 'binaryRows' | 'apart'> {
  // Now and then constants by the extended protocol, as drivers send a statement without parameters.
  const { text, values } = random.below(4) === 0 ? { text: withConstants(sql), values: [] } : withParameters(sql);
  const formats = formatsOf(values, random);
  const types = random.below(3) === 0 ? values.map(({ oid }) => oid) : [];
  const bytes = values.map((value, at) =>
    value.text === null ? null : formats[at] === 1 ? value.bytes : Buffer.from(value.text),
  );
  return {
    ...{ text: noisy(text, random), values: bytes, formats, types },
    ...{ binaryRows: random.below(4) === 0, apart: random.below(5) === 0 },
  };
}

/** What changes nothing about a statement. */
function noisy(text: string, random: Random): string {
  switch (random.below(16)) {
    case 0:
      return `/* values ($1), 'é 😀 */ ${text}`;
    case 1:
      return `${text};`;
    case 2:
      return `${text} -- it's all`;
    case 3:
      return `\n\t${text} ;\n`;
    default:
      return text;
  }
}

function inPieces(bytes: Buffer, size: number): readonly Buffer[] {
  return Array.from({ length: Math.ceil(bytes.length / size) }, (_, at) => bytes.subarray(at * size, (at + 1) * size));
}
