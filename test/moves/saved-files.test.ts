/** One task: cutover_save_config: after every switch both files name the side that serves, and are otherwise as their owner left them. */
import { chmodSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { until } from '../support/wait.js';
import { Moving } from './moving.js';

const FILES = ['pgdog.toml', 'users.toml'] as const;
type Texts = readonly string[];

/** The other side under each name, and not one byte more. */
function swapped(texts: Texts): Texts {
  return texts.map((text) =>
    text.replace(/^(name|database)( *= *)"(prod|prod_new)"/gm, (_, key: string, equals: string, name: string) => {
      return `${key}${equals}"${name === 'prod' ? 'prod_new' : 'prod'}"`;
    }),
  );
}

it('files are right after cutover, rollback and cutover, and a restart reads them', { timeout: 240_000 }, async () => {
  const moving = await Moving.start({ source: 17, destination: 18, general: 'cutover_save_config = true' });
  onTestFinished(() => moving.stop());
  const { system } = moving;
  const path = (name: string): string => join(system.directory, name);
  const read = (suffix = ''): Texts =>
    FILES.map((name) => readFileSync(path(name.replace('.toml', `${suffix}.toml`)), 'utf8'));
  // Not how a program would write it: odd spacing, comments between keys, a key nobody asked for.
  writeFileSync(
    path('users.toml'),
    `${readFileSync(path('users.toml'), 'utf8').replaceAll('\ndatabase = ', '\n# who may go where\ndatabase   =   ')}\n# the end\n`,
  );
  chmodSync(path('pgdog.toml'), 0o640);
  chmodSync(path('users.toml'), 0o600);
  await system.admin('RELOAD');
  const before = read();
  const after = swapped(before);
  expect(after).not.toEqual(before);

  // Files follow the resume (docs/decisions/0010): clients are not held back by them.
  const saved = async (now: Texts, bak: Texts): Promise<void> => {
    await until('the files are saved', () => JSON.stringify(read()) === JSON.stringify(now)).catch(() => undefined);
    expect(read()).toEqual(now);
    expect(read('.bak')).toEqual(bak);
  };
  await moving.load();
  await moving.reshard();
  await saved(after, before);
  expect(await moving.rollback()).toMatchObject({ outcome: 'moved' });
  await saved(before, after);
  expect(await moving.cutover()).toMatchObject({ outcome: 'moved' });
  await saved(after, before);
  await moving.writes();
  await moving.expectNothingLost();
  expect(FILES.map((name) => statSync(path(name)).mode & 0o777)).toEqual([0o640, 0o600]);

  await system.admin('RELOAD');
  expect(await moving.servingMajor()).toBe(18);
  await system.stopServing();
  await system.serve();
  expect(await moving.servingMajor()).toBe(18);
  expect(await moving.rollback()).toMatchObject({ outcome: 'moved' });
  expect(await moving.servingMajor()).toBe(17);
  await saved(before, after);
  // Nothing prepared for a switch is left lying beside the files.
  expect(readdirSync(system.directory).sort()).toEqual([
    'pgdog.bak.toml',
    'pgdog.toml',
    'users.bak.toml',
    'users.toml',
  ]);
});
