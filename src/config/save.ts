/**
 * One task: put swapped names into pgdog.toml and users.toml, both or neither.
 *
 * The slow part is done ahead: `prepareSwap` writes the new and the old content of both files beside them, synced. Then
 * `commitSwap` renames. Its first rename puts a journal into place; from then on the swap is decided, and whoever finds the
 * journal (a repetition, a restart) finishes it by the same renames. A rename that was done finds nothing to rename, so every step
 * may be repeated.
 */
import { realpath, rm } from 'node:fs/promises';
import { dirname, format, parse } from 'node:path';
import { z } from 'zod';
import { CutoverError, messageOf } from '../errors/errors.js';
import { invariant } from '../errors/invariant.js';
import { databaseEntries } from './databases.js';
import { decodeUtf8 } from './document.js';
import { parseConfig, type ConfigFiles } from './load.js';
import { CONFIG_FILE } from './schema.js';
import { checkSource } from './source.js';
import { addressServing, sameAddress, type ServerAddress } from './swap.js';
import { swapText, type FileKind } from './swap-text.js';
import { digestOf, readIfPresent, renameIfPresent, syncDirectory, writeDurably } from './temporary-file.js';

export interface SwapIntent {
  readonly files: ConfigFiles;
  /** the name applications connect to */
  readonly name: string;
  readonly peer: string;
  /** tells one swap from another: the epoch */
  readonly tag: string;
  /** where `name` has to lead afterwards: the swap sets, it never exchanges blindly */
  readonly serving: ServerAddress;
}

export interface PreparedFiles extends SwapIntent {
  /** null when the files lead there already and nothing is to be done */
  readonly digests: Digests | null;
}

const KINDS = ['config', 'users'] as const satisfies readonly FileKind[];
const DIGESTS = z.strictObject({ before: z.string(), after: z.string() });
const JOURNAL = z.strictObject({
  tag: z.string(),
  name: z.string(),
  peer: z.string(),
  digests: z.strictObject({ config: DIGESTS, users: DIGESTS }),
});

type Journal = z.infer<typeof JOURNAL>;
type Digests = Journal['digests'];

/**
 * Writes the swapped files beside the live ones, with their mode and owner, on disk before it returns. Changes nothing that
 * is in force; may be called again. Call it ahead of the pause: syncing takes milliseconds.
 *
 * @throws CutoverError `configuration_not_saved` (not writable, cannot be edited, neither name leads to `serving`),
 *   `configuration_invalid` (a file on disk is not valid any more)
 */
export function prepareSwap(
  files: ConfigFiles,
  name: string,
  peer: string,
  tag: string,
  serving: ServerAddress,
): Promise<PreparedFiles> {
  return inTurn(() => prepare({ files, name, peer, tag, serving }));
}

/**
 * Puts the prepared files into place and keeps the previous ones as `pgdog.bak.toml` and `users.bak.toml`. Prepares anew when
 * a file was edited meanwhile. May be called again, also after a crash: a repetition changes nothing.
 *
 * @throws as prepareSwap
 */
export function commitSwap(prepared: PreparedFiles): Promise<void> {
  return inTurn(async () => {
    await finish(prepared.files);
    const current = (await stillFits(prepared)) ? prepared : await prepare(prepared);
    if (current.digests === null) {
      await discard(prepared);
      return;
    }
    const places = await placesOf(prepared.files, prepared.tag);
    await saving(() => renameIfPresent(places.journalPrepared, places.journal));
    await finish(prepared.files);
    if (!(await alreadyServes(prepared))) throw notSaved('the prepared files vanished');
  });
}

/** Removes what `prepareSwap` wrote, for a cutover that is not to be. May be called again. */
export function discardPrepared(prepared: PreparedFiles): Promise<void> {
  return inTurn(() => discard(prepared));
}

/**
 * Finishes a swap that a crash interrupted between two renames. To be called at start, before the files are loaded; may be
 * called again.
 *
 * @returns whether there was one
 */
export function finishSwap(files: ConfigFiles): Promise<boolean> {
  return inTurn(() => finish(files));
}

// One after the other within this process; another process that shares the files is covered by the renames alone.
let last: Promise<unknown> = Promise.resolve();

function inTurn<T>(work: () => Promise<T>): Promise<T> {
  const turn = last.then(work, work);
  last = turn.catch(() => undefined);
  return turn;
}

async function prepare(intent: SwapIntent): Promise<PreparedFiles> {
  const { files, name, peer, tag, serving } = intent;
  await finish(files);
  const places = await placesOf(files, tag);
  const texts = { config: await readText(places.config.live), users: await readText(places.users.live) };
  if (leadsTo(files, texts.config, name, serving)) return { ...intent, digests: null };
  const swapped = {
    config: swapText(texts.config, 'config', name, peer),
    users: swapText(texts.users, 'users', name, peer),
  };
  if (!leadsTo(files, swapped.config, name, serving)) {
    throw notSaved(`neither "${name}" nor "${peer}" in ${files.config} leads to the serving side`);
  }
  parseConfig({ file: files.config, text: swapped.config }, { file: files.users, text: swapped.users });
  const digests = { config: digestsOf(texts.config, swapped.config), users: digestsOf(texts.users, swapped.users) };
  await saving(async () => {
    for (const kind of KINDS) await writeBoth(places[kind], texts[kind], swapped[kind]);
    const journal: Journal = { tag, name, peer, digests };
    await writeDurably(places.journalPrepared, Buffer.from(JSON.stringify(journal)), places.config.live);
  });
  return { ...intent, digests };
}

async function finish(files: ConfigFiles): Promise<boolean> {
  const { journal: path } = await placesOf(files, '');
  const bytes = await readIfPresent(path);
  if (bytes === null) return false;
  const journal = JOURNAL.parse(JSON.parse(bytes.toString('utf8')));
  const places = await placesOf(files, journal.tag);
  await saving(async () => {
    for (const kind of KINDS) await replace(kind, places[kind], journal);
    for (const directory of new Set(KINDS.map((kind) => dirname(places[kind].live)))) await syncDirectory(directory);
    await rm(path, { force: true });
  });
  return true;
}

async function replace(kind: FileKind, place: Place, journal: Journal): Promise<void> {
  const digest = digestOf(await readFileAt(place.live));
  const { before, after } = journal.digests[kind];
  const waiting = (await readIfPresent(place.next)) !== null;
  if (waiting && digest !== before && digest !== after) {
    // Edited after it was prepared: the edit is kept and its names are swapped.
    const text = await readText(place.live);
    await writeBoth(place, text, swapText(text, kind, journal.name, journal.peer));
  }
  await renameIfPresent(place.previous, place.backup);
  if (digest === after) await rm(place.next, { force: true });
  else await renameIfPresent(place.next, place.live);
}

async function discard(prepared: PreparedFiles): Promise<void> {
  const places = await placesOf(prepared.files, prepared.tag);
  const written = [places.journalPrepared, ...KINDS.flatMap((kind) => [places[kind].next, places[kind].previous])];
  for (const path of written) await rm(path, { force: true });
}

/** False as well when it was committed meanwhile: preparing again then finds nothing to do. */
async function stillFits({ files, tag, digests }: PreparedFiles): Promise<boolean> {
  if (digests === null) return true;
  const places = await placesOf(files, tag);
  if ((await readIfPresent(places.journalPrepared)) === null) return false;
  for (const kind of KINDS) {
    if (digestOf(await readFileAt(places[kind].live)) !== digests[kind].before) return false;
  }
  return true;
}

async function alreadyServes(intent: SwapIntent): Promise<boolean> {
  const { config } = await placesOf(intent.files, intent.tag);
  return leadsTo(intent.files, await readText(config.live), intent.name, intent.serving);
}

function leadsTo(files: ConfigFiles, text: string, name: string, serving: ServerAddress): boolean {
  const address = addressServing(databaseEntries(checkSource({ file: files.config, text }, CONFIG_FILE)), name);
  return address !== null && sameAddress(address, serving);
}

interface Place {
  readonly live: string;
  /** what will be live */
  readonly next: string;
  /** what will be the backup */
  readonly previous: string;
  readonly backup: string;
}

interface Places extends Record<FileKind, Place> {
  readonly journalPrepared: string;
  readonly journal: string;
}

/** Behind symbolic links: a rename onto a link would replace the link. */
async function placesOf(files: ConfigFiles, tag: string): Promise<Places> {
  invariant(/^[\w-]*$/.test(tag), 'a tag becomes part of a file name');
  const [config, users] = await saving(() => Promise.all([realpath(files.config), realpath(files.users)]));
  const place = (live: string): Place => {
    const { dir, name, ext } = parse(live);
    return {
      live,
      next: `${live}.cutover-${tag}.next`,
      previous: `${live}.cutover-${tag}.previous`,
      backup: format({ dir, name: `${name}.bak`, ext }),
    };
  };
  return {
    config: place(config),
    users: place(users),
    journalPrepared: `${config}.cutover-${tag}.journal`,
    journal: `${config}.cutover.journal`,
  };
}

async function writeBoth(place: Place, text: string, swapped: string): Promise<void> {
  await writeDurably(place.previous, Buffer.from(text), place.live);
  await writeDurably(place.next, Buffer.from(swapped), place.live);
}

function digestsOf(before: string, after: string): { before: string; after: string } {
  return { before: digestOf(Buffer.from(before)), after: digestOf(Buffer.from(after)) };
}

async function readText(path: string): Promise<string> {
  const bytes = await readFileAt(path);
  return saving(() => Promise.resolve(decodeUtf8(bytes)));
}

async function readFileAt(path: string): Promise<Buffer> {
  const bytes = await readIfPresent(path);
  if (bytes === null) throw notSaved(`${path} is gone`);
  return bytes;
}

/** A file system's error as one of ours. */
async function saving<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw error instanceof CutoverError ? error : notSaved(messageOf(error), { cause: error });
  }
}

function notSaved(problem: string, options?: ErrorOptions): CutoverError {
  return new CutoverError('configuration_not_saved', { problem }, options);
}
