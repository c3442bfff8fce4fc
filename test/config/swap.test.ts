/** One task: exchanged names change nothing but the names. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { fingerprint } from '../../src/config/fingerprint.js';
import { parseConfig } from '../../src/config/load.js';
import { swapNames } from '../../src/config/swap.js';
import { swapText, type FileKind } from '../../src/config/swap-text.js';
import type { Config } from '../../src/config/config.js';

interface Texts {
  readonly config: string;
  readonly users: string;
}

const read = (name: string): string => readFileSync(new URL(`fixtures/${name}`, import.meta.url), 'utf8');
const PGDOG_USER: Texts = { config: read('pgdog-user/pgdog.toml'), users: read('pgdog-user/users.toml') };

function load(texts: Texts): Config {
  const options = { environment: {}, adminPassword: 'fixed' };
  return parseConfig({ file: 'pgdog.toml', text: texts.config }, { file: 'users.toml', text: texts.users }, options);
}

function swapped(texts: Texts, a = 'prod', b = 'prod_new'): Texts {
  return { config: swapText(texts.config, 'config', a, b), users: swapText(texts.users, 'users', a, b) };
}

/** Line by line, what differs. */
function changes(before: string, after: string): string[] {
  const old = before.split('\n');
  return after.split('\n').filter((line) => !old.includes(line));
}

describe('in the text', () => {
  test('only the names change, each where it stands, and a defaulted database_name is written down', () => {
    const { config, users } = swapped(PGDOG_USER);
    expect(changes(PGDOG_USER.config, config)).toEqual([
      "  name   = 'prod_new'       # what applications say",
      "  database_name = 'prod'",
      'name = "prod_new"',
      '"name" = "prod"',
      'source_db = "prod_new"      # from',
    ]);
    expect(changes(PGDOG_USER.users, users)).toEqual([
      'database = "prod_new"         # today',
      'database = "prod"',
      '    "prod_new",      # one',
      "    'prod',  # two",
    ]);
  });

  test('names that are not databases stay: a table, a user, a password called like one', () => {
    const { config, users } = swapped(PGDOG_USER);
    expect(config).toContain('tables = ["prod", "settings"]');
    expect(users).toContain('name = "prod" # a user with the name of a database\npassword = "prod"');
  });

  test.each<[string, FileKind, string, string]>([
    [
      'no line break at the end',
      'config',
      '[[databases]]\nhost="h"\nname="prod"',
      '[[databases]]\nhost="h"\nname="prod_new"\ndatabase_name = "prod"',
    ],
    [
      'inline tables',
      'config',
      'databases = [{ name = "prod", host = "h" }, {name="prod_new",host="h",database_name="x"}]',
      'databases = [{ name = "prod_new", database_name = "prod", host = "h" }, {name="prod",host="h",database_name="x"}]',
    ],
    [
      'replicas on both sides',
      'config',
      `[[databases]]\nname = "prod"\nhost = "a"\n[[databases]]\nname = "prod"\nhost = "b"\nrole = "replica"\n[[databases]]\nname = "prod_new"\nhost = "c"\ndatabase_name = "prod"\n[[databases]]\nname = "prod_new"\nhost = "d"\ndatabase_name = "prod"\nrole = "replica"`,
      `[[databases]]\nname = "prod_new"\ndatabase_name = "prod"\nhost = "a"\n[[databases]]\nname = "prod_new"\ndatabase_name = "prod"\nhost = "b"\nrole = "replica"\n[[databases]]\nname = "prod"\nhost = "c"\ndatabase_name = "prod"\n[[databases]]\nname = "prod"\nhost = "d"\ndatabase_name = "prod"\nrole = "replica"`,
    ],
    [
      'multi-line quotes',
      'users',
      '[[users]]\nname="a"\ndatabase="""\nprod"""',
      '[[users]]\nname="a"\ndatabase="prod_new"',
    ],
    [
      'an escaped name',
      'users',
      '[[users]]\nname="a"\ndatabase="pr\\u006fd"',
      '[[users]]\nname="a"\ndatabase="prod_new"',
    ],
  ])('%s', (_, kind, text, expected) => {
    expect(swapText(text, kind, 'prod', 'prod_new')).toBe(expected);
    expect(swapText(`\uFEFF${text.replaceAll('\n', '\r\n')}`, kind, 'prod', 'prod_new')).toBe(
      `\uFEFF${expected.replaceAll('\n', '\r\n')}`,
    );
  });

  test('a name that does not fit into its quotes gets others', () => {
    expect(swapText("[[users]]\nname='a'\ndatabase='x'", 'users', 'x', `it's "\u007F\\`)).toBe(
      `[[users]]\nname='a'\ndatabase="it's \\"\\u007F\\\\"`,
    );
  });
});

describe('in memory', () => {
  test('equals what the swapped files load as', () => {
    expect(fingerprint(swapNames(load(PGDOG_USER), 'prod', 'prod_new'))).toBe(fingerprint(load(swapped(PGDOG_USER))));
  });

  test('twice gives the first configuration', () => {
    const config = load(PGDOG_USER);
    expect(swapNames(swapNames(config, 'prod', 'prod_new'), 'prod', 'prod_new')).toEqual(config);
  });

  test('an unknown name is refused', () => {
    expect(() => swapNames(load(PGDOG_USER), 'prod', 'gone')).toThrow('database "gone" is not configured');
  });
});

// Names that force quoting and escaping, without the sign by which the test below finds comments.
const names = fc
  .uniqueArray(
    fc.oneof(
      fc.constantFrom('prod', 'prod_new', "it's", 'a "b"', 'é😀', 'x.y'),
      fc.string({ minLength: 1, maxLength: 8, unit: 'grapheme' }),
    ),
    { minLength: 3, maxLength: 3, selector: (name) => name.replaceAll('#', '') },
  )
  .map((all) => all.map((name) => name.replaceAll('#', '') || 'hash'));

const quote = (name: string, literal: boolean): string =>
  literal && !/['\p{Cc}]/u.test(name) ? `'${name}'` : JSON.stringify(name).replaceAll('\u007F', '\\u007F');

/** A pair of files over three databases, with comments, blank lines and quotes of every kind at random places. */
const files = fc
  .record({
    names,
    literal: fc.infiniteStream(fc.boolean()),
    gap: fc.infiniteStream(fc.constantFrom('', '\n', '# a note\n', '  # prod, indented\n\n')),
    trail: fc.infiniteStream(fc.constantFrom('', ' # "prod"', "\t# x = 'prod'")),
    pad: fc.infiniteStream(fc.constantFrom('', '  ', '\t')),
    explicit: fc.infiniteStream(fc.boolean()),
    lineBreak: fc.constantFrom('\n', '\r\n'),
    mark: fc.constantFrom('', '\uFEFF'),
  })
  .map(({ names: [a = '', b = '', c = ''], lineBreak, mark, ...choices }) => {
    const next = <T>(stream: fc.Stream<T>): T => (stream.next() as IteratorYieldResult<T>).value;
    const line = (key: string, value: string): string =>
      `${next(choices.gap)}${next(choices.pad)}${key} =${next(choices.pad)} ${value}${next(choices.trail)}\n`;
    const q = (name: string): string => quote(name, next(choices.literal));
    const database = (name: string, host: string): string =>
      `${next(choices.gap)}[[databases]]${next(choices.trail)}\n` +
      (next(choices.explicit) ? line('database_name', q('on_server')) : '') +
      line('name', q(name)) +
      line('host', q(host));
    const user = (name: string, databases: string): string => `[[users]]\n${line('name', q(name))}${databases}`;
    const finished = (text: string): string => mark + text.replaceAll('\n', lineBreak);
    return {
      a,
      b,
      texts: {
        config: finished(
          database(a, 'h1') + database(c, 'h3') + database(b, 'h2') + `[[mirroring]]\n${line('source_db', q(b))}`,
        ),
        users: finished(
          user('u', line('database', q(a))) +
            user('v', line('databases', `[\n  ${q(b)}, # one\n${q(c)},${q(a)}\n]`)) +
            user('w', line('all_databases', 'true')),
        ),
      },
    };
  });

const comments = (text: string): string[] => text.match(/#[^\r\n]*/g) ?? [];

test('whatever the files look like, no comment is lost, memory and text agree, and twice is the beginning', () => {
  fc.assert(
    fc.property(files, ({ a, b, texts }) => {
      const once = swapped(texts, a, b);
      expect(comments(once.config)).toEqual(comments(texts.config));
      expect(comments(once.users)).toEqual(comments(texts.users));
      expect(fingerprint(load(once))).toBe(fingerprint(swapNames(load(texts), a, b)));
      const twice = swapped(once, a, b);
      expect(load(twice)).toEqual(load(texts));
      expect(swapped(swapped(twice, a, b), a, b)).toEqual(twice);
      expect(/[^\r]\n/.test(twice.config)).toBe(/[^\r]\n/.test(texts.config));
    }),
    { numRuns: 200 },
  );
});
