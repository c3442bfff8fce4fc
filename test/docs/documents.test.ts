/** One task: what the documents say to type works, what they name exists, and every link leads somewhere. */
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parseCommand } from '../../src/admin/parse.js';
import { parseConfig } from '../../src/config/load.js';
import { REPLICA_DATABASE } from '../../src/config/replica-schema.js';
import { GENERAL } from '../../src/config/schema.js';
import { STEPS } from '../../src/cutover/epoch.js';
import { ERRORS } from '../../src/errors/errors.js';
import { messageOf } from '../../src/errors/errors.js';
import {
  anchors,
  codeBlocks,
  type CodeBlock,
  inlineCode,
  localLinks,
  plain,
  readDocument,
  ROOT,
  section,
  tableRows,
} from './markdown.js';

function markdownIn(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => `${folder}/${name}`)
    .sort();
}

function sourcesIn(folder: string): string {
  const names = readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' });
  return names
    .filter((name) => name.endsWith('.ts'))
    .map((name) => readDocument(`${folder}/${name}`))
    .join('\n');
}

/** admin-commands.md is held to the grammar by test/admin. */
const HELD_ELSEWHERE = 'docs/admin-commands.md';
const PAGES = ['README.md', 'CHANGELOG.md', 'src/cutover/SPEC.md', ...markdownIn('docs')];
const COMMAND =
  /^(RESHARD|COPY_DATA|REPLICATE|SCHEMA_SYNC|CUTOVER|VERIFY|STOP_TASK|RETIRE|MAINTENANCE|PAUSE|RESUME|SHOW) ./;

/** What a reader may type at the admin database: blocks marked so, lines behind its prompt, and commands in the text. */
function adminCommands(text: string): string[] {
  const blocks = codeBlocks(text);
  const marked = blocks.filter((block) => block.language === 'admin').flatMap((block) => block.text.split('\n'));
  const prompted = blocks
    .flatMap((block) => block.text.split('\n'))
    .filter((line) => line.startsWith('admin=> '))
    .map((line) => line.slice('admin=> '.length));
  const inText = inlineCode(text).filter((code) => COMMAND.test(code) && !/[…|[]/.test(code));
  return [...marked, ...prompted, ...inText]
    .map((line) => line.replaceAll(/<[^>]+>/g, '7'))
    .filter((line) => line !== '');
}

function shellLines(text: string): string[] {
  const blocks = codeBlocks(text).filter((block) => block.language === 'sh');
  return blocks.flatMap((block) => block.text.split('\n')).filter((line) => line !== '');
}

describe.each(PAGES)('%s', (page) => {
  const text = readDocument(page);

  test('every link leads to a file, and to a heading in it', () => {
    const broken = localLinks(text).filter(({ path, anchor }) => {
      const target = path === '' ? page : normalize(join(dirname(page), path));
      if (!existsSync(join(ROOT, target))) return true;
      return anchor !== '' && !anchors(readDocument(target)).includes(anchor);
    });
    expect(broken).toEqual([]);
  });

  test('every admin command is understood', () => {
    const commands = page === HELD_ELSEWHERE ? [] : adminCommands(text);
    const wrong = commands.flatMap((command) => {
      try {
        parseCommand(command);
        return [];
      } catch (error) {
        return [`${command}: ${messageOf(error)}`];
      }
    });
    expect(wrong).toEqual([]);
  });

  test('every view it shows is one of the admin database', () => {
    const known = readDocument('docs/admin-commands.md');
    const views = adminCommands(text).flatMap((command) => /^SHOW \w+/.exec(command)?.[0] ?? []);
    expect(views.filter((view) => !known.includes(`\`${view}\``))).toEqual([]);
  });

  test('every npm script and every option of the program it names exists', () => {
    const { scripts } = JSON.parse(readDocument('package.json')) as { scripts: Record<string, string> };
    const named = [...text.matchAll(/npm (?:run ([\w:]+)|(test))/g)].map((match) => match[1] ?? match[2] ?? '');
    expect(named.filter((script) => !Object.hasOwn(scripts, script))).toEqual([]);
    const program = readDocument('src/cli/main.ts');
    const lines = shellLines(text).filter((line) => /^(cutover|node dist\/src\/cli\/main\.js) /.test(line));
    const words = lines.flatMap((line) => line.replace(/^(cutover|node \S+) /, '').match(/(?:^\w+|--[\w-]+)/g) ?? []);
    expect(words.filter((word) => !program.includes(`'${word}`))).toEqual([]);
  });

  test('every file of the repository it names is there', () => {
    const named = inlineCode(text).filter((code) =>
      /^(src|workflows|activities|test|compose|docs)(\/[\w.-]+)+$/.test(code),
    );
    expect(named.filter((path) => !existsSync(join(ROOT, path)))).toEqual([]);
  });

  test('every setting of a move it names is one', () => {
    const named = inlineCode(text).map((code) => code.split(' ')[0] ?? '');
    const settings = named.filter((code) => /^(cutover|resharding)_[a-z_]+$/.test(code));
    const known = (key: string): boolean =>
      Object.hasOwn({ ...GENERAL, ...REPLICA_DATABASE }, key) ||
      readDocument('src/config/schema.ts').includes(`'${key}'`);
    // What the databases have of ours: triggers of the fence, and a schema.
    const isMade = (name: string): boolean => name.startsWith('cutover_fence_') || name === 'cutover_shards';
    expect(settings.filter((key) => !known(key) && !isMade(key))).toEqual([]);
  });
});

const tomlIn = (page: string): CodeBlock[] =>
  codeBlocks(readDocument(page)).filter(({ language }) => language === 'toml');

test.each(PAGES.filter((page) => tomlIn(page).length > 0))('%s: its configuration loads', (page) => {
  const blocks = tomlIn(page);
  const file = (name: string): { file: string; text: string } => {
    const found = blocks.find(({ label, text }) => label === name || text.startsWith(`# ${name}`));
    return { file: name, text: found?.text ?? '' };
  };
  const [config, users] = [file('pgdog.toml'), file('users.toml')];
  expect(blocks.filter(({ text }) => text !== config.text && text !== users.text)).toEqual([]);
  expect(parseConfig(config, users, { environment: {} }).warnings).toEqual([]);
});

test('no page is missing from the table of contents', () => {
  const linked = localLinks(readDocument('README.md')).map(({ path }) => path);
  const pages = markdownIn('docs').filter((page) => !/^docs\/(decisions|evidence)\//.test(page));
  expect(pages.filter((page) => !linked.includes(page))).toEqual([]);
});

test('every decision has its context, the decision and the consequence', () => {
  for (const page of markdownIn('docs/decisions')) {
    const text = readDocument(page);
    for (const part of ['Context', 'Decision', 'Consequence']) expect(section(text, part), page).not.toBe('');
  }
});

describe('understanding-output.md', () => {
  const text = readDocument('docs/understanding-output.md');

  /** The texts a workflow enters as its phase; those it compares with are none. */
  function phasesEntered(): string[] {
    const places = sourcesIn('workflows').matchAll(/(?:#phase\(|phase: )([^;})]*)/g);
    const texts = [...places].flatMap(([, code = '']) => [...code.replaceAll(/=== '\w+'/g, '').matchAll(/'([^']+)'/g)]);
    return [...new Set(texts.map(([, name = '']) => name))].sort();
  }

  test('knows every inner status that a workflow enters, and no other', () => {
    const rows = tableRows(section(text, 'SHOW TASKS'));
    const start = rows.findIndex(([cell]) => cell === 'inner_status');
    const listed = rows.slice(start + 1).flatMap(([cell = '']) => cell.split(', ').map(plain));
    expect(listed.sort()).toEqual(phasesEntered());
  });

  test('the lines of the log it explains are written by the program', () => {
    const sources = sourcesIn('src');
    const messages = tableRows(section(text, 'The log'))
      .slice(1)
      .map(([message = '']) => plain(message));
    expect(messages.length).toBeGreaterThan(0);
    expect(messages.filter((message) => !sources.includes(`'${message}'`))).toEqual([]);
  });

  test('the columns of the steps are those of the steps', () => {
    const columns = STEPS.map((step) => `${step.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}_ms`);
    const named = inlineCode(text).filter(
      (code) => code.endsWith('_ms') && code !== 'paused_ms' && code !== 'elapsed_ms',
    );
    expect(named.filter((column) => !columns.includes(column))).toEqual([]);
  });
});

test('how-it-works.md and what-if.md name all eight steps, in their order', () => {
  const steps = (page: string, title: string): string[] =>
    inlineCode(section(readDocument(page), title)).filter((code) => STEPS.some((step) => step === code));
  expect(steps('docs/how-it-works.md', 'The pause')).toEqual([...STEPS]);
  expect([...new Set(steps('docs/what-if.md', 'The worker dies'))]).toEqual([...STEPS]);
});

test('the errors that what-if.md sends a reader to are in the table', () => {
  const named = inlineCode(readDocument('docs/what-if.md')).filter((code) => /^[a-z]+_[a-z_]+$/.test(code));
  const notErrors = /^(cutover_|max_slot_wal_keep_size|pg_prepared_xacts|lag_bytes|reason)/;
  expect(named.filter((code) => !notErrors.test(code) && !Object.hasOwn(ERRORS, code))).toEqual([]);
});

test('coming-from-pgdog.md lists every key that PgDog would refuse, so that nobody is stuck on the way back', () => {
  // prettier-ignore
  const ofPgDog = new Set([
    'cutover_traffic_stop_threshold', 'cutover_replication_lag_threshold', 'cutover_last_transaction_delay', 'cutover_timeout',
    'cutover_timeout_action', 'cutover_save_config', 'resharding_parallel_copies', 'resharding_copy_format',
  ]);
  const isOurs = (key: string): boolean => /^(cutover|resharding)_/.test(key) && !ofPgDog.has(key);
  const listed = inlineCode(section(readDocument('docs/coming-from-pgdog.md'), 'Going back to PgDog')).filter(isOurs);
  expect(listed.sort()).toEqual(Object.keys(GENERAL).filter(isOurs).sort());
});
