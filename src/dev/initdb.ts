/** One task: make the data of a PostgreSQL cluster with initdb, and its superuser with a password. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, chownSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { CutoverError, messageOf } from '../errors/errors.js';
import type { Binaries, Major } from './postgres-binaries.js';

/** How clients over TCP prove who they are, as pg_hba.conf calls it. */
export type Proof = 'trust' | 'scram-sha-256';

export interface Initial {
  /** exists; gets `data` and `password` */
  readonly directory: string;
  readonly binaries: Binaries;
  readonly major: Major;
  readonly proof: Proof;
  /** the superuser's */
  readonly password: string;
}

export const SUPERUSER = 'postgres';
const INITDB_DEADLINE_MS = 120_000;
const PASSWORD_BYTES = 16;

/** @throws CutoverError `dev_server_unavailable` */
export async function runInitdb({ directory, binaries, major, proof, password }: Initial): Promise<void> {
  const passwordFile = writePassword(directory, binaries, password);
  const how = ['-D', join(directory, 'data'), '-U', SUPERUSER, `--pwfile=${passwordFile}`, `--auth=${proof}`];
  // C: the only locale every machine has. No sync: the files of a cluster that does not exist yet are worth nothing.
  const what = ['--encoding=UTF8', '--locale=C', '--no-sync', '--no-instructions'];
  try {
    await promisify(execFile)(binaries.initdb, [...how, ...what], {
      ...binaries.runAs,
      cwd: directory,
      env: serverEnvironment(),
      timeout: INITDB_DEADLINE_MS,
    });
  } catch (cause) {
    const problem = `initdb failed: ${messageOf(cause)}`;
    const remedy = 'Free some disk space and shared memory, or name another directory.';
    throw new CutoverError(
      'dev_server_unavailable',
      { server: `PostgreSQL ${major.toString()}`, problem, remedy },
      { cause },
    );
  }
}

/** A random one. */
export function newPassword(): string {
  return randomBytes(PASSWORD_BYTES).toString('hex');
}

/** Into the file `password` of `directory`, which only the server's user can read from now on. Gives the path. */
export function writePassword(directory: string, { runAs }: Binaries, password: string): string {
  const file = join(directory, 'password');
  writeFileSync(file, `${password}\n`, { mode: 0o600 });
  if (runAs) for (const path of [directory, file]) chownSync(path, runAs.uid, runAs.gid);
  chmodSync(directory, 0o700);
  return file;
}

/** Nothing of this process's own environment: PGPORT, PGDATA and the like would change what the server does. */
export function serverEnvironment(): NodeJS.ProcessEnv {
  return { PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC' };
}
