/**
 * One task: make the data of a new temporary cluster: a copy of what initdb made once on this machine, with an identity of its own.
 *
 * A copy takes a twentieth of the processor time of initdb. PostgreSQL knows clusters apart by their system identifier, and so does
 * Cutover, so each copy gets a new one, as pg_resetwal would give it; the packages have none.
 */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync } from 'node:fs';
import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { invariant } from '../errors/invariant.js';
import { newPassword, runInitdb, type Proof } from './initdb.js';
import { sharedFolder, type Binaries, type Major } from './postgres-binaries.js';

const COPY_DEADLINE_MS = 60_000;
/** Raised when the template is made otherwise, so that what an older version left is not used. */
const FORM = 1;

/**
 * Makes `directory`/data for a cluster that does not run yet, and gives the password that its superuser has from the template.
 * May be called by several processes at once: the template appears in one step and whole.
 *
 * @throws CutoverError `dev_server_unavailable` when initdb cannot make the template
 */
export async function copyTemplate(directory: string, binaries: Binaries, major: Major, proof: Proof): Promise<string> {
  const template = await templateOf(binaries, major);
  const data = join(directory, 'data');
  // -p keeps owner and mode (POSIX, cp). It is found whatever a person has for a PATH.
  const env = { PATH: `${process.env.PATH ?? ''}:/bin:/usr/bin` };
  await promisify(execFile)('cp', ['-Rp', join(template, 'data'), data], { env, timeout: COPY_DEADLINE_MS });
  giveIdentity(data);
  const rules = join(data, 'pg_hba.conf');
  writeFileSync(rules, readFileSync(rules, 'utf8').replaceAll(/^((?:local|host) .* )trust$/gm, `$1${proof}`));
  return readFileSync(join(template, 'password'), 'utf8').trim();
}

async function templateOf(binaries: Binaries, major: Major): Promise<string> {
  const parent = sharedFolder();
  const target = join(parent, `template-${FORM.toString()}-${binaries.version}`);
  if (existsSync(target)) return target;
  const draft = mkdtempSync(join(parent, 'template-draft-'));
  try {
    // The server's user must reach what is its own in there.
    chmodSync(draft, 0o755);
    const directory = join(draft, 'template');
    mkdirSync(directory);
    await runInitdb({ directory, binaries, major, proof: 'trust', password: newPassword() });
    renameSync(directory, target);
  } catch (error) {
    // Another process that did the same was faster.
    if (!existsSync(target)) throw error;
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
  return target;
}

/** offsetof(XLogLongPageHeaderData, xlp_sysid), the same in all majors (PostgreSQL sources, xlog_internal.h). */
const WAL_IDENTIFIER_OFFSET = 24;

/** The identifier stands in pg_control, which ends with a checksum, and at the beginning of each WAL segment. */
function giveIdentity(data: string): void {
  // A bigint of SQL is signed, and pg_control_system() shows one.
  const identifier = randomBytes(8).readBigUInt64LE() >> 1n;
  const controlFile = join(data, 'global', 'pg_control');
  const control = readFileSync(controlFile);
  const checksumOffset = findChecksum(control);
  control.writeBigUInt64LE(identifier, 0);
  control.writeUInt32LE(crc32c(control.subarray(0, checksumOffset)), checksumOffset);
  writeFileSync(controlFile, control);
  const folder = join(data, 'pg_wal');
  for (const name of readdirSync(folder).filter((entry) => /^[0-9A-F]{24}$/.test(entry))) {
    const segment = join(folder, name);
    const wal = readFileSync(segment);
    wal.writeBigUInt64LE(identifier, WAL_IDENTIFIER_OFFSET);
    writeFileSync(segment, wal);
  }
}

/** The checksum of ControlFileData is its last field and covers all before it; how long that is depends on the major (pg_control.h). */
function findChecksum(control: Buffer): number {
  let offset = 8;
  while (offset < 512 && control.readUInt32LE(offset) !== crc32c(control.subarray(0, offset))) offset += 4;
  invariant(offset < 512, 'pg_control has its checksum in its first 512 bytes');
  return offset;
}

const CRC32C_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = (value & 1) === 0 ? value >>> 1 : (value >>> 1) ^ 0x82f63b78;
  return value >>> 0;
});

/** CRC-32C (Castagnoli), which PostgreSQL uses (pg_crc32c.h). */
function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ (CRC32C_TABLE[(crc ^ byte) & 0xff] ?? 0);
  return (crc ^ 0xffffffff) >>> 0;
}
