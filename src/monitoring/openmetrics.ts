/** One task: write families of metrics as OpenMetrics 1.0 text (https://prometheus.io/docs/specs/om/open_metrics_spec/). */

export const CONTENT_TYPE = 'application/openmetrics-text; version=1.0.0; charset=utf-8';

export type Labels = Readonly<Record<string, string | number>>;

export interface Sample {
  readonly labels: Labels;
  readonly value: number;
}

/** `info`: a gauge that is always 1, whose labels are what it tells. */
export type FamilyType = 'gauge' | 'counter' | 'info';

export interface Family {
  /** without the suffix that its samples have */
  readonly name: string;
  readonly type: FamilyType;
  readonly help: string;
  readonly samples: readonly Sample[];
}

const SUFFIX: Readonly<Record<FamilyType, string>> = { gauge: '', counter: '_total', info: '_info' };

/** The name under which the samples of a family are found. */
export function sampleName({ name, type }: Pick<Family, 'name' | 'type'>): string {
  return `${name}${SUFFIX[type]}`;
}

/** A whole exposition. Families without a sample are left out. @param namespace what each name begins with */
export function exposition(families: readonly Family[], namespace: string): string {
  const written = families.filter(({ samples }) => samples.length > 0).map((family) => familyText(family, namespace));
  return `${written.join('')}# EOF\n`;
}

function familyText(family: Family, namespace: string): string {
  const name = `${namespace}${family.name}`;
  const sample = `${namespace}${sampleName(family)}`;
  const lines = family.samples.map(({ labels, value }) => `${sample}${labelsText(labels)} ${numberText(value)}\n`);
  return `# HELP ${name} ${escapedHelp(family.help)}\n# TYPE ${name} ${family.type}\n${lines.join('')}`;
}

function labelsText(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value.toString())}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

function escaped(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}

/** The same three characters: HELP is a string as a label's value is. */
const escapedHelp = escaped;

function numberText(value: number): string {
  if (Number.isFinite(value)) return value.toString();
  if (Number.isNaN(value)) return 'NaN';
  return value > 0 ? '+Inf' : '-Inf';
}
