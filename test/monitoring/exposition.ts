/** One task: read OpenMetrics text as strictly as its specification (1.0) allows, for tests. */

export interface ReadSample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface ReadFamily {
  readonly type: string;
  readonly help: string;
  readonly samples: readonly ReadSample[];
}

const SUFFIXES: Readonly<Record<string, string>> = { gauge: '', counter: '_total', info: '_info' };
const METADATA = /^# (HELP|TYPE) ([a-zA-Z_:][\w:]*) (.+)$/;
const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/s;
/** Inside the quotes: no bare quote, no bare line end, and a backslash before nothing but one of three characters. */
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\\n]|\\[\\n"])*)"(,|$)/y;
const NUMBER = /^(?:[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?|NaN|[+-]Inf)$/i;

/** Each family by its name. @throws Error with the line that is wrong */
export function readExposition(text: string): ReadonlyMap<string, ReadFamily> {
  if (!text.endsWith('\n# EOF\n')) throw new Error('does not end with # EOF');
  const families = new Map<string, { type: string; help: string; samples: ReadSample[] }>();
  const seen = new Set<string>();
  let name = '';
  for (const line of text.slice(0, -'# EOF\n'.length).split('\n').slice(0, -1)) {
    const [, kind, about = '', rest = ''] = METADATA.exec(line) ?? [];
    const family = families.get(about);
    if (kind === 'HELP') {
      if (family !== undefined) throw new Error(`a family twice: ${line}`);
      name = about;
      families.set(name, { type: '', help: rest, samples: [] });
    } else if (kind === 'TYPE') {
      if (about !== name || family?.type !== '' || SUFFIXES[rest] === undefined) throw new Error(`wrong TYPE: ${line}`);
      family.type = rest;
    } else {
      const sample = readSample(line);
      const of = families.get(name);
      if (of?.type === undefined || sample.name !== `${name}${SUFFIXES[of.type] ?? '?'}`)
        throw new Error(`a sample of no family, or in the wrong place: ${line}`);
      const key = JSON.stringify([sample.name, Object.entries(sample.labels).sort()]);
      if (seen.has(key)) throw new Error(`the same sample twice: ${line}`);
      seen.add(key);
      if (of.type === 'counter' && !(sample.value >= 0)) throw new Error(`a counter below zero: ${line}`);
      of.samples.push(sample);
    }
  }
  for (const [family, { type, samples }] of families)
    if (type === '' || samples.length === 0) throw new Error(`a family without a type or a sample: ${family}`);
  return families;
}

function readSample(line: string): ReadSample {
  const [, name, labelText = '', number] = SAMPLE.exec(line) ?? [];
  if (name === undefined || number === undefined || !NUMBER.test(number)) throw new Error(`not a sample: ${line}`);
  const labels: Record<string, string> = {};
  LABEL.lastIndex = 0;
  while (LABEL.lastIndex < labelText.length) {
    const [, label, value, end] = LABEL.exec(labelText) ?? [];
    if (label === undefined || value === undefined) throw new Error(`wrong labels: ${line}`);
    if (end === ',' && LABEL.lastIndex === labelText.length) throw new Error(`a comma behind the last label: ${line}`);
    if (label in labels) throw new Error(`a label twice: ${line}`);
    labels[label] = value.replaceAll(/\\(.)/g, (_, escaped: string) => (escaped === 'n' ? '\n' : escaped));
  }
  return { name, labels, value: Number(number.replace('Inf', 'Infinity')) };
}

/** The value of the one sample whose labels include these. @throws Error when there is none, or another one too */
export function valueOf(
  families: ReadonlyMap<string, ReadFamily>,
  family: string,
  labels: Readonly<Record<string, string>> = {},
): number {
  const found = samplesOf(families, family, labels);
  if (found.length !== 1) throw new Error(`${found.length.toString()} samples of ${family} ${JSON.stringify(labels)}`);
  return found[0]?.value ?? NaN;
}

/** Those whose labels include these. */
export function samplesOf(
  families: ReadonlyMap<string, ReadFamily>,
  family: string,
  labels: Readonly<Record<string, string>> = {},
): readonly ReadSample[] {
  const samples = families.get(family)?.samples ?? [];
  return samples.filter((sample) => Object.entries(labels).every(([name, value]) => sample.labels[name] === value));
}
