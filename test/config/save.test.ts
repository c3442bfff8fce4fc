/** One task: whatever happens around a save, both files are swapped or neither is, and the previous content is kept. */
import { chown, lstat, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import type * as FileSystem from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { loadConfig, type ConfigFiles } from '../../src/config/load.js';
import { commitSwap, discardPrepared, finishSwap, prepareSwap } from '../../src/config/save.js';
import type { ServerAddress } from '../../src/config/swap.js';

/** Counts renames and removals; the one with this number throws instead, and so do all after it: the process is gone. */
const crash = vi.hoisted(() => ({ at: Infinity, calls: 0 }));

vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof FileSystem>();
  const counted = <Arguments extends unknown[]>(call: (...args: Arguments) => Promise<void>) => {
    return (...args: Arguments): Promise<void> => {
      crash.calls += 1;
      return crash.calls >= crash.at ? Promise.reject(new Error('crash')) : call(...args);
    };
  };
  return { ...real, rename: counted(real.rename), rm: counted(real.rm) };
});

const CONFIG = `# serves
[[databases]]
name = "prod" # here
host = "10.0.0.1"

[[databases]]
name = "prod_new"
host = "10.0.0.2"
database_name = "prod"
`;
const USERS =
  '[[users]]\nname = "app"\ndatabase = "prod"\npassword = "a"\n\n[[users]]\nname = "next"\ndatabase = "prod_new"\n';
const SOURCE: ServerAddress = { host: '10.0.0.1', port: 5432, databaseName: 'prod' };
const DESTINATION: ServerAddress = { host: '10.0.0.2', port: 5432, databaseName: 'prod' };

let directory: string;
let files: ConfigFiles;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cutover-save-'));
  files = { config: join(directory, 'pgdog.toml'), users: join(directory, 'users.toml') };
  await writeFile(files.config, CONFIG, { mode: 0o640 });
  await writeFile(files.users, USERS, { mode: 0o600 });
});

afterEach(async () => {
  Object.assign(crash, { at: Infinity, calls: 0 });
  await rm(directory, { recursive: true });
});

const read = (name: string): Promise<string> => readFile(join(directory, name), 'utf8');
const forward = (tag = '7') => prepareSwap(files, 'prod', 'prod_new', tag, DESTINATION);
const back = (tag = '8') => prepareSwap(files, 'prod', 'prod_new', tag, SOURCE);

/** What the files on disk say. */
function routes(): string {
  const { databases, users } = loadConfig(files, { environment: {} });
  const serving = databases.find((entry) => entry.name === 'prod')?.host ?? 'nothing';
  return `prod is ${serving} for ${users
    .filter((user) => user.database === 'prod')
    .map((user) => user.name)
    .join()}`;
}
const BEFORE = 'prod is 10.0.0.1 for app';
const AFTER = 'prod is 10.0.0.2 for next';

async function nothingLeftBehind(): Promise<void> {
  expect((await readdir(directory)).sort()).toEqual(['pgdog.bak.toml', 'pgdog.toml', 'users.bak.toml', 'users.toml']);
}

test('preparing changes nothing, discarding leaves nothing', async () => {
  const prepared = await forward();
  expect(routes()).toBe(BEFORE);
  await discardPrepared(prepared);
  await discardPrepared(prepared);
  expect(await readdir(directory)).toEqual(['pgdog.toml', 'users.toml']);
});

test('the previous content is kept, with mode and owner', async () => {
  await commitSwap(await forward());
  expect(routes()).toBe(AFTER);
  expect([await read('pgdog.bak.toml'), await read('users.bak.toml')]).toEqual([CONFIG, USERS]);
  expect(await read('pgdog.toml')).toContain('name = "prod_new" # here');
  for (const [name, mode] of [
    ['pgdog.toml', 0o640],
    ['users.toml', 0o600],
    ['users.bak.toml', 0o600],
  ] as const) {
    expect((await stat(join(directory, name))).mode & 0o777).toBe(mode);
  }
  await nothingLeftBehind();
});

test.runIf(process.getuid?.() === 0)('a file of another owner stays theirs', async () => {
  await chown(files.users, 12_345, 12_346);
  await commitSwap(await forward());
  const owners = [await stat(files.users), await stat(join(directory, 'users.bak.toml'))];
  expect(owners.map(({ uid, gid }) => [uid, gid])).toEqual([
    [12_345, 12_346],
    [12_345, 12_346],
  ]);
});

test('a repetition does not swap back, nor lose the backup', async () => {
  const prepared = await forward();
  await commitSwap(prepared);
  await commitSwap(prepared);
  await commitSwap(await forward());
  expect(routes()).toBe(AFTER);
  expect(await read('pgdog.bak.toml')).toBe(CONFIG);
  await nothingLeftBehind();
});

test('a late repetition does not undo what a person edited afterwards', async () => {
  const prepared = await forward();
  await commitSwap(prepared);
  await writeFile(files.users, `${await read('users.toml')}# edited\n`);
  await commitSwap(prepared);
  expect(routes()).toBe(AFTER);
  expect(await read('users.toml')).toContain('# edited');
});

test('twice at once is once', async () => {
  const [one, two] = await Promise.all([forward(), forward()]);
  await Promise.all([commitSwap(one), commitSwap(two), commitSwap(one)]);
  expect(routes()).toBe(AFTER);
  expect(await read('users.bak.toml')).toBe(USERS);
  await nothingLeftBehind();
});

test('going back keeps the files of the way there', async () => {
  await commitSwap(await forward());
  const there = await read('pgdog.toml');
  await commitSwap(await back());
  expect(routes()).toBe(BEFORE);
  expect(await read('pgdog.bak.toml')).toBe(there);
});

test('a rollback of a cutover that was never saved leaves the files alone', async () => {
  await commitSwap(await back());
  expect([await read('pgdog.toml'), await read('users.toml')]).toEqual([CONFIG, USERS]);
  expect(await readdir(directory)).toEqual(['pgdog.toml', 'users.toml']);
});

test('an edit between preparing and saving is kept', async () => {
  const prepared = await forward();
  await writeFile(files.users, `${USERS}# edited\n`);
  await commitSwap(prepared);
  expect(routes()).toBe(AFTER);
  expect(await read('users.toml')).toContain('# edited');
  expect(await read('users.bak.toml')).toBe(`${USERS}# edited\n`);
  await nothingLeftBehind();
});

test('prepared files that someone removed are prepared again', async () => {
  const prepared = await forward();
  await discardPrepared(prepared);
  await commitSwap(prepared);
  expect(routes()).toBe(AFTER);
});

async function callsOfACommit(): Promise<number> {
  const prepared = await forward();
  crash.calls = 0;
  await commitSwap(prepared);
  return crash.calls;
}

test('a crash at any rename leaves files that a restart finishes, or that were never touched', async () => {
  const count = await callsOfACommit();
  expect(count).toBeGreaterThan(5);
  for (let at = 1; at <= count; at += 1) {
    await Promise.all([writeFile(files.config, CONFIG), writeFile(files.users, USERS)]);
    const prepared = await forward();
    Object.assign(crash, { at, calls: 0 });
    await expect(commitSwap(prepared), `crash ${at.toString()}`).rejects.toThrow('crash');
    crash.at = Infinity;
    const found = await finishSwap(files);
    expect(routes(), `restart after crash ${at.toString()}`).toBe(found ? AFTER : BEFORE);
    // The first rename decides.
    expect(found, `crash ${at.toString()}`).toBe(at > 1);
    await commitSwap(await forward());
    expect(routes(), `repetition after crash ${at.toString()}`).toBe(AFTER);
    expect([await read('pgdog.bak.toml'), await read('users.bak.toml')]).toEqual([CONFIG, USERS]);
    await nothingLeftBehind();
  }
});

test('an edit after the crash is kept when the swap is finished', async () => {
  const prepared = await forward();
  Object.assign(crash, { at: 4, calls: 0 });
  await expect(commitSwap(prepared)).rejects.toThrow('crash');
  crash.at = Infinity;
  await writeFile(files.users, `${USERS}# edited\n`);
  expect(await finishSwap(files)).toBe(true);
  expect(routes()).toBe(AFTER);
  expect(await read('users.toml')).toContain('# edited');
});

test('a link stays a link', async () => {
  const link = join(directory, 'link.toml');
  await symlink(files.config, link);
  await commitSwap(await prepareSwap({ ...files, config: link }, 'prod', 'prod_new', '7', DESTINATION));
  expect((await lstat(link)).isSymbolicLink()).toBe(true);
  expect(routes()).toBe(AFTER);
});

test('a serving side that no name leads to is refused before anything is written', async () => {
  const elsewhere = { ...DESTINATION, port: 1 };
  await expect(prepareSwap(files, 'prod', 'prod_new', '7', elsewhere)).rejects.toMatchObject({
    code: 'configuration_not_saved',
  });
  expect(await readdir(directory)).toEqual(['pgdog.toml', 'users.toml']);
});

test('a file that is not valid any more, or gone, is refused ahead', async () => {
  await writeFile(files.users, `${USERS}pasword = "x"\n`);
  await expect(forward()).rejects.toMatchObject({ code: 'configuration_invalid' });
  await rm(files.users);
  await expect(forward()).rejects.toMatchObject({ code: 'configuration_not_saved' });
  await writeFile(files.users, USERS);
});

test('a folder that cannot be written to is refused ahead', async () => {
  // A folder in the way stands for missing permission, which root does not have to ask for.
  await mkdir(`${files.users}.cutover-7.next`);
  await expect(forward()).rejects.toMatchObject({ code: 'configuration_not_saved', sqlstate: '58030' });
  expect(routes()).toBe(BEFORE);
});
