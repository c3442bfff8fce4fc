/**
 * One task: turn the text of an admin command into data.
 *
 * Keywords are found in any case; names keep theirs, quoted or not. The grammar is a table: one line of usage and one function
 * for each command.
 */
import { suggest } from '../config/suggest.js';
import { CutoverError } from '../errors/errors.js';
import type { CutoverTarget, SchemaPart, StartRequest } from './ports.js';
import { tokensOf, type Token } from './tokens.js';

type CutoverOption = 'dry run' | 'rehearse' | 'accept loss';

export type AdminCommand =
  | { readonly command: 'start'; readonly tag: string; readonly request: StartRequest }
  | { readonly command: 'cutover'; readonly target: CutoverTarget; readonly option: CutoverOption | null }
  | { readonly command: 'verify'; readonly source: string; readonly destination: string }
  | { readonly command: 'stop_task'; readonly taskId: number; readonly save: boolean }
  | { readonly command: 'retire'; readonly database: string }
  | { readonly command: 'show'; readonly view: string; readonly arguments: readonly string[] }
  | { readonly command: 'maintenance'; readonly on: boolean; readonly database: string | null }
  | { readonly command: 'pause' | 'resume'; readonly database: string | null }
  | { readonly command: 'reload' | 'reconnect' | 'shutdown' }
  /** null: every replica */
  | { readonly command: 'ban' | 'unban'; readonly pool: number | null }
  | { readonly command: 'probe'; readonly url: string }
  | { readonly command: 'set'; readonly name: string }
  | { readonly command: 'node'; readonly method: string; readonly json: string };

interface Rule {
  readonly usage: string;
  parse(words: Words): AdminCommand;
}

const MOVE = '<source> <destination> <publication> [<slot>]';

const RULES: Readonly<Record<string, Rule>> = {
  RESHARD: { usage: `RESHARD ${MOVE}`, parse: (words) => start('RESHARD', 'reshard', words) },
  COPY_DATA: { usage: `COPY_DATA ${MOVE}`, parse: (words) => start('COPY_DATA', 'copy_data', words) },
  REPLICATE: { usage: `REPLICATE ${MOVE}`, parse: (words) => start('REPLICATE', 'replication', words) },
  SCHEMA_SYNC: { usage: `SCHEMA_SYNC PRE|POST|CUTOVER ${MOVE}`, parse: schemaSync },
  CUTOVER: { usage: 'CUTOVER [<task_id>|<name>] [DRY RUN|REHEARSE|ACCEPT LOSS]', parse: cutover },
  VERIFY: {
    usage: 'VERIFY <source> <destination>',
    parse: (words) => ({
      command: 'verify',
      source: words.name('a source database'),
      destination: words.name('a destination database'),
    }),
  },
  STOP_TASK: {
    usage: 'STOP_TASK <task_id> [SAVE]',
    parse: (words) => ({
      command: 'stop_task',
      taskId: words.number('a task id'),
      save: words.keyword(['SAVE']) !== null,
    }),
  },
  RETIRE: { usage: 'RETIRE <database>', parse: (words) => ({ command: 'retire', database: words.name('a database') }) },
  SHOW: { usage: 'SHOW <view> [<column or argument>, …]', parse: show },
  MAINTENANCE: { usage: 'MAINTENANCE ON|OFF [<database>]', parse: maintenance },
  PAUSE: { usage: 'PAUSE [<database>]', parse: (words) => hold('pause', words) },
  RESUME: { usage: 'RESUME [<database>]', parse: (words) => hold('resume', words) },
  RELOAD: { usage: 'RELOAD', parse: () => ({ command: 'reload' }) },
  RECONNECT: { usage: 'RECONNECT', parse: () => ({ command: 'reconnect' }) },
  BAN: { usage: 'BAN [<pool>]', parse: (words) => ban('ban', words) },
  UNBAN: { usage: 'UNBAN [<pool>]', parse: (words) => ban('unban', words) },
  SHUTDOWN: { usage: 'SHUTDOWN', parse: () => ({ command: 'shutdown' }) },
  PROBE: { usage: 'PROBE <postgres url>', parse: (words) => ({ command: 'probe', url: words.name('a URL') }) },
  SET: { usage: 'SET <name> TO <value>', parse: set },
  CUTOVER_NODE: {
    usage: "CUTOVER_NODE <method> '<json>'",
    parse: (words) => ({ command: 'node', method: words.name('a method'), json: words.name('a JSON object') }),
  },
};

/** Commands of PgDog that are known and not there. */
const NOT_IMPLEMENTED = ['HEALTHCHECK', 'SETUP', 'RESET'];

/**
 * Parses one command.
 *
 * @throws CutoverError `admin_syntax` with the usage as its hint, `not_implemented` for a known command that is not there
 */
export function parseCommand(statement: string): AdminCommand {
  const [first, ...rest] = tokensOf(statement);
  const keyword = first?.kind === 'word' ? first.text.toUpperCase() : '';
  const rule = Object.hasOwn(RULES, keyword) ? RULES[keyword] : undefined;
  if (!rule) throw unknown(keyword);
  const words = new Words(rest, rule.usage);
  const command = rule.parse(words);
  words.end();
  return command;
}

/** Only what looks like a keyword is repeated in the error: the rest may hold a password. */
function unknown(keyword: string): CutoverError {
  if (NOT_IMPLEMENTED.includes(keyword)) return new CutoverError('not_implemented', { feature: keyword });
  const meant = suggest(keyword, Object.keys(RULES));
  const problem = /^\w+$/.test(keyword) ? `unknown command ${keyword}` : 'a command was expected';
  const usage = meant === null ? `The commands are ${Object.keys(RULES).join(', ')}.` : `Did you mean ${meant}?`;
  return new CutoverError('admin_syntax', { problem, usage });
}

/** The words after the command's name, taken one by one. */
class Words {
  readonly #tokens: readonly Token[];
  readonly #usage: string;
  #next = 0;

  constructor(tokens: readonly Token[], usage: string) {
    this.#tokens = tokens;
    this.#usage = usage;
  }

  name(what: string): string {
    const text = this.optionalName();
    if (text === null) throw this.#syntax(`${what} is missing`);
    return text;
  }

  optionalName(): string | null {
    const token = this.#tokens[this.#next];
    if (!token) return null;
    this.#next += 1;
    return token.text;
  }

  number(what: string): number {
    const text = this.name(what);
    if (!isNumber(text)) throw this.#syntax(`${what} is a number`);
    return Number(text);
  }

  optionalNumber(what: string): number | null {
    return this.#next < this.#tokens.length ? this.number(what) : null;
  }

  /** Takes the next word if it is one of these keywords, unquoted. */
  keyword<const Keyword extends string>(keywords: readonly Keyword[]): Keyword | null {
    const token = this.#tokens[this.#next];
    const found = token?.kind === 'word' ? keywords.find((keyword) => keyword === token.text.toUpperCase()) : undefined;
    if (found !== undefined) this.#next += 1;
    return found ?? null;
  }

  needKeyword<const Keyword extends string>(keywords: readonly Keyword[]): Keyword {
    const found = this.keyword(keywords);
    if (found === null) throw this.#syntax(`${keywords.join(' or ')} was expected`);
    return found;
  }

  /** Everything left, commas dropped. */
  rest(): string[] {
    const tokens = this.#tokens.slice(this.#next);
    this.#next = this.#tokens.length;
    return tokens.filter(({ kind, text }) => kind !== 'word' || text !== ',').map(({ text }) => text);
  }

  end(): void {
    if (this.#next < this.#tokens.length) throw this.#syntax('there is more than the command takes');
  }

  #syntax(problem: string): CutoverError {
    return new CutoverError('admin_syntax', { problem, usage: `Usage: ${this.#usage}` });
  }
}

function start(tag: string, kind: StartRequest['kind'], words: Words, part?: SchemaPart): AdminCommand {
  const [source, destination] = [words.name('a source database'), words.name('a destination database')];
  const publication = words.name('a publication');
  const slot = words.optionalName();
  const request = { kind, source, destination, publication };
  return {
    command: 'start',
    tag,
    request: { ...request, ...(slot === null ? {} : { slot }), ...(part === undefined ? {} : { part }) },
  };
}

const PARTS = { PRE: 'pre', POST: 'post', CUTOVER: 'cutover' } as const;

function schemaSync(words: Words): AdminCommand {
  return start('SCHEMA_SYNC', 'schema_sync', words, PARTS[words.needKeyword(['PRE', 'POST', 'CUTOVER'])]);
}

function cutover(words: Words): AdminCommand {
  const first = cutoverOption(words);
  if (first !== null) return { command: 'cutover', target: null, option: first };
  const text = words.optionalName();
  if (text === null) return { command: 'cutover', target: null, option: null };
  const target = isNumber(text) ? { taskId: Number(text) } : { name: text };
  return { command: 'cutover', target, option: cutoverOption(words) };
}

function cutoverOption(words: Words): CutoverOption | null {
  const option = words.keyword(['DRY', 'ACCEPT', 'REHEARSE']);
  if (option === null) return null;
  if (option === 'REHEARSE') return 'rehearse';
  words.needKeyword([option === 'DRY' ? 'RUN' : 'LOSS']);
  return option === 'DRY' ? 'dry run' : 'accept loss';
}

function show(words: Words): AdminCommand {
  const view = words.name('what to show').toLowerCase();
  return { command: 'show', view, arguments: words.rest() };
}

function maintenance(words: Words): AdminCommand {
  const on = words.needKeyword(['ON', 'OFF']) === 'ON';
  return { command: 'maintenance', on, database: words.optionalName() };
}

/** PgDog also takes a user before the database; the gate is per database, so that form is refused rather than widened. */
function hold(command: 'pause' | 'resume', words: Words): AdminCommand {
  const database = words.optionalName();
  if (words.optionalName() !== null) {
    throw new CutoverError('not_implemented', { feature: `${command.toUpperCase()} of a single user` });
  }
  return { command, database };
}

function ban(command: 'ban' | 'unban', words: Words): AdminCommand {
  return { command, pool: words.optionalNumber('a pool') };
}

function set(words: Words): AdminCommand {
  const name = words.name('a name');
  words.rest();
  return { command: 'set', name };
}

function isNumber(text: string): boolean {
  return /^\d{1,15}$/.test(text);
}
