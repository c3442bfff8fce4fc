/** One task: collect what is wrong with a history, at a length that a person can read. */

export type Anomaly =
  | 'lost append'
  | 'doubled append'
  | 'invented value'
  | 'dirty read'
  | 'intermediate read'
  | 'internal contradiction'
  | 'incompatible orders'
  | 'stale read'
  | 'write cycle'
  | 'information cycle'
  | 'anti-dependency cycle'
  | 'real-time cycle';

export interface Finding {
  readonly anomaly: Anomaly;
  /** what happened, with the transactions it happened to */
  readonly message: string;
}

/** Of each anomaly; a thousand lost appends are one defect. */
const FINDINGS_MAX = 10;

export class Findings {
  readonly #found: Finding[] = [];
  readonly #counts = new Map<Anomaly, number>();

  /** Keeps the finding, or only counts it when there are enough of its kind; `tell` is called for those that are kept. */
  add(anomaly: Anomaly, tell: () => string): void {
    const count = (this.#counts.get(anomaly) ?? 0) + 1;
    this.#counts.set(anomaly, count);
    if (count <= FINDINGS_MAX) this.#found.push({ anomaly, message: tell() });
  }

  /** All that was kept; where some were only counted, one more finding of the kind says how many. */
  all(): readonly Finding[] {
    const more = [...this.#counts]
      .filter(([, count]) => count > FINDINGS_MAX)
      .map(([anomaly, count]) => ({ anomaly, message: `and ${(count - FINDINGS_MAX).toString()} more of these` }));
    return [...this.#found, ...more];
  }
}

/** The findings as lines for a terminal or a report. */
export function describeFindings(findings: readonly Finding[]): string {
  return findings.map(({ anomaly, message }) => `${anomaly}: ${message}`).join('\n');
}
