/** One task: prove that the copy of the PostgreSQL binaries is whole, readable by everybody, and mended when it is not. */
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { readableCopy, temporaryFolder } from '../../src/dev/postgres-binaries.js';

let folder: string;
let packageFolder: string;
let parent: string;

/** A package as npm leaves it when install scripts are switched off: the list of symlinks, and no symlink. */
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cutover-binaries-'));
  packageFolder = join(folder, 'package');
  parent = join(folder, 'copies');
  mkdirSync(parent);
  const native = join(packageFolder, 'native');
  mkdirSync(join(native, 'lib'), { recursive: true });
  mkdirSync(join(native, 'bin'));
  writeFileSync(join(packageFolder, 'package.json'), '{"version":"17.0.0"}');
  writeFileSync(join(native, 'bin', 'postgres'), 'program');
  writeFileSync(join(native, 'lib', 'libpq.so.5.17'), 'library');
  const link = { source: 'native/lib/libpq.so.5.17', target: 'native/lib/libpq.so.5' };
  writeFileSync(join(native, 'pg-symlinks.json'), JSON.stringify([link]));
  chmodSync(join(native, 'bin', 'postgres'), 0o700);
  chmodSync(join(native, 'lib'), 0o700);
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

test('a copy has the symlinks that no install script made', () => {
  const copy = readableCopy(packageFolder, parent);
  expect(readlinkSync(join(copy, 'lib', 'libpq.so.5'))).toBe('libpq.so.5.17');
  expect(readFileSync(join(copy, 'lib', 'libpq.so.5'), 'utf8')).toBe('library');
});

test('a copy of closed folders can be read and run by everybody', () => {
  const copy = readableCopy(packageFolder, parent);
  for (const path of ['.', 'lib', 'bin/postgres']) expect(statSync(join(copy, path)).mode & 0o777).toBe(0o755);
  expect(statSync(join(copy, 'lib', 'libpq.so.5.17')).mode & 0o777).toBe(0o644);
});

test('a copy that lost a file, a symlink or the end of a file is made again', () => {
  const copy = readableCopy(packageFolder, parent);
  const damages = [
    (): void => {
      rmSync(join(copy, 'bin', 'postgres'));
    },
    (): void => {
      rmSync(join(copy, 'lib', 'libpq.so.5'));
    },
    (): void => {
      writeFileSync(join(copy, 'lib', 'libpq.so.5.17'), 'lib');
    },
    (): void => {
      rmSync(join(copy, 'pg-symlinks.json'));
    },
  ];
  for (const damage of damages) {
    damage();
    expect(readableCopy(packageFolder, parent)).toBe(copy);
    expect(readFileSync(join(copy, 'bin', 'postgres'), 'utf8')).toBe('program');
    expect(readFileSync(join(copy, 'lib', 'libpq.so.5'), 'utf8')).toBe('library');
  }
});

test('a whole copy is not made again', () => {
  const copy = readableCopy(packageFolder, parent);
  const before = statSync(copy).ino;
  expect(statSync(readableCopy(packageFolder, parent)).ino).toBe(before);
});

test("temporary files are where TMPDIR says, unless root's is closed to the user that the servers run as", () => {
  chmodSync(folder, 0o755);
  vi.stubEnv('TMPDIR', parent);
  try {
    expect(temporaryFolder()).toBe(parent);
    chmodSync(folder, 0o700);
    expect(temporaryFolder()).toBe(process.getuid?.() === 0 ? '/tmp' : parent);
  } finally {
    vi.unstubAllEnvs();
  }
});
