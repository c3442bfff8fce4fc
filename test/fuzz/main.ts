/** One task: run streams from the command line: many of them with the tables of what they met, a file of the corpus, or planted faults. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { messageOf } from '../../src/errors/errors.js';
import { Random } from '../history/random.js';
import { coverage } from './coverage.js';
import { minimised } from './minimise.js';
import { mutated } from './mutate.js';
import { PLANTED } from './planted.js';
import { readStream, writeStream, type Stream } from './stream.js';
import { loadTarget, type Target } from './target.js';
import { VirtualClock } from './virtual-clock.js';
import { World, type Known } from './world.js';

const STREAMS = 20_000;
const CORPUS = fileURLToPath(new URL('../../../test/fuzz/corpus', import.meta.url));
/** Behind so many streams everything begins anew: what a run finds can be run again from there. */
const WORLD_STREAMS = 10_000;
/** A run of so many must meet every pair that the tables do not excuse. */
const COVERED_STREAMS = 100_000;

const clock = new VirtualClock();
let world: World | null = null;
let known: ReadonlyMap<string, Known> | undefined;

async function main(args: readonly string[]): Promise<number> {
  const after = (option: string): string | undefined =>
    args.includes(option) ? args[args.indexOf(option) + 1] : undefined;
  const fault = PLANTED.find(({ name }) => name === after('--planted'));
  if (args.includes('--planted') && fault === undefined) throw new Error('no fault of this name is planted');
  const seed = Number(after('--seed') ?? 1);
  const streams = Number(after('--streams') ?? STREAMS);
  const range = { seed, from: Number(after('--from') ?? 0), streams, each: Number(after('--world') ?? WORLD_STREAMS) };
  const target = await loadTarget(fault?.edits ?? []);
  try {
    watch();
    const file = after('--file');
    if (file !== undefined) return await replay(target, file, Number(after('--streams') ?? 1));
    return await many(target, range, fault !== undefined);
  } finally {
    target.remove();
  }
}

function watch(): void {
  clock.install();
  coverage.install();
  const caught = (error: unknown): void => {
    world?.problem(`nobody caught: ${error instanceof Error ? (error.stack ?? error.message) : messageOf(error)}`);
  };
  process.on('uncaughtException', caught);
  process.on('unhandledRejection', caught);
}

function readCorpus(): readonly Stream[] {
  const names = readdirSync(CORPUS).filter((name) => name.endsWith('.txt'));
  return names.sort().map((name) => readStream(name.slice(0, -4), readFileSync(join(CORPUS, name), 'utf8')));
}

async function renew(target: Target, corpus: readonly Stream[]): Promise<World> {
  known ??= await new World(clock).ask(corpus);
  world = new World(clock, known);
  await world.open(target);
  return world;
}

/** Streams of one seed, and how many of them are one world's. */
interface Range {
  readonly seed: number;
  readonly from: number;
  readonly streams: number;
  readonly each: number;
}

async function many(target: Target, { seed, from, streams, each }: Range, planted: boolean): Promise<number> {
  const corpus = readCorpus();
  const begun = process.hrtime.bigint();
  const used = process.cpuUsage();
  const memory = new Memory();
  let [current, digest] = [await renew(target, corpus), createHash('sha256')];
  const end = from + streams + (from === 0 ? corpus.length : 0);
  for (let number = from; number < end; number += 1) {
    if (number > from && number % each === 0) {
      console.log(`${number.toString()} streams, ${memory.look()}, digest ${shown(digest)}`);
      [current, digest] = [await renew(target, corpus), createHash('sha256')];
    }
    const stream = corpus[number] ?? mutated(number, new Random(seed, number), corpus);
    const broken = await current.run(stream);
    if (broken !== null) {
      console.log(`stream ${number.toString()} of seed ${seed.toString()} (${stream.name}): ${broken}`);
      if (!planted) await keep(target, corpus, stream, broken);
      return 1;
    }
    digest.update(current.heard);
  }
  const seconds = Number(process.hrtime.bigint() - begun) / 1e9;
  const { user, system } = process.cpuUsage(used);
  const { lines, holes } = coverage.report();
  for (const line of lines) console.log(line);
  console.log(
    `${streams.toString()} streams of seed ${seed.toString()} from ${from.toString()} in ${seconds.toFixed(0)} s, ` +
      `${Math.round((streams / (user + system)) * 1e6).toString()} for a second of one core: 0 broken; ${memory.look()}, digest ${shown(digest)}`,
  );
  for (const hole of holes) console.log(`never met: ${hole}`);
  return planted || holes.length === 0 || streams < COVERED_STREAMS ? 0 : 1;
}

function shown(digest: ReturnType<typeof createHash>): string {
  return digest.digest('hex').slice(0, 16);
}

/** Makes the stream as short as it can be and writes it to the corpus. */
async function keep(target: Target, corpus: readonly Stream[], stream: Stream, broken: string): Promise<void> {
  const breaks = async (shorter: Stream): Promise<boolean> => {
    return (await (await renew(target, corpus)).run(shorter)) !== null;
  };
  if (!(await breaks(stream))) {
    console.log('alone it breaks nothing: what came before it in its world matters');
    return;
  }
  const shortest = await minimised(stream, breaks);
  const path = join(CORPUS, `odd-found-${stream.seed.toString()}.txt`);
  const reason = broken.split('\n')[0] ?? '';
  writeFileSync(path, `# ${reason}\n${writeStream(shortest)}`);
  console.log(`written to ${path}`);
}

/** Plays one file, in so many orders of deliveries. */
async function replay(target: Target, file: string, orders: number): Promise<number> {
  const played = await renew(target, readCorpus());
  const stream = readStream(file, readFileSync(file, 'utf8'));
  for (let order = 0; order < orders; order += 1) {
    const broken = await played.run({ ...stream, seed: stream.seed + order });
    if (broken === null) continue;
    console.log(`seed ${(stream.seed + order).toString()}: ${broken}`);
    return 1;
  }
  console.log('holds');
  return 0;
}

class Memory {
  #least = Number.POSITIVE_INFINITY;

  look(): string {
    (globalThis as { gc?: () => void }).gc?.();
    const megabytes = process.memoryUsage().heapUsed / 1e6;
    this.#least = Math.min(this.#least, megabytes);
    return `heap ${megabytes.toFixed(0)} MB (least ${this.#least.toFixed(0)})`;
  }
}

// What the fuzzer itself throws must not be taken for what nobody caught in the product.
process.exitCode = await main(process.argv.slice(2)).catch((error: unknown) => {
  console.log(error);
  return 1;
});
