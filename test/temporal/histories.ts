/** One task: read workflow histories as a person in Temporal's UI does: names, summaries, inputs and results. */
import type { Client, WorkflowHandle } from '@temporalio/client';
import { defaultPayloadConverter, type Payload } from '@temporalio/common';

export type History = Awaited<ReturnType<WorkflowHandle['fetchHistory']>>;
export type HistoryEvent = NonNullable<History['events']>[number];

export interface Told {
  readonly workflowId: string;
  readonly workflowType: string;
  readonly history: History;
}

/** What a history says of one activity, ordinary or local. */
export interface ActivityEntry {
  readonly kind: 'activity' | 'marker';
  readonly name: string;
  readonly summary: string;
  readonly input: readonly unknown[];
  /** of a local activity: it stands in the marker itself */
  readonly result: unknown;
}

/** Every run of every workflow that the server knows. */
export async function allHistories(client: Client): Promise<readonly Told[]> {
  const told: Told[] = [];
  for await (const { workflowId, runId, type } of client.workflow.list()) {
    const history = await client.workflow.getHandle(workflowId, runId).fetchHistory();
    told.push({ workflowId, workflowType: type, history });
  }
  return told;
}

/** The activities of a history in the order in which they were scheduled; markers stand where they were written. */
export function activitiesOf({ events }: History): readonly ActivityEntry[] {
  return (events ?? []).flatMap((event): readonly ActivityEntry[] => {
    const scheduled = event.activityTaskScheduledEventAttributes;
    const marker = event.markerRecordedEventAttributes;
    if (!scheduled && !marker) return [];
    const details = marker?.details ?? {};
    const payloads = scheduled?.input?.payloads ?? [];
    const data = (valuesOf(details.data?.payloads)[0] ?? {}) as { activity_type?: string };
    return [
      {
        kind: scheduled ? 'activity' : 'marker',
        name: scheduled?.activityType?.name ?? data.activity_type ?? marker?.markerName ?? '',
        summary: summaryOf(event),
        input: valuesOf(payloads),
        result: valuesOf(details.result?.payloads)[0] ?? null,
      },
    ];
  });
}

function summaryOf(event: HistoryEvent): string {
  const summary = event.userMetadata?.summary;
  return summary ? (defaultPayloadConverter.fromPayload<string>(summary) satisfies string) : '';
}

/** The first activity scheduled after the child `workflowType` has ended. */
export function firstAfterChild(history: History, workflowType: string): ActivityEntry | null {
  const events = history.events ?? [];
  const end = events.findIndex(
    (e) => e.childWorkflowExecutionCompletedEventAttributes?.workflowType?.name === workflowType,
  );
  return end < 0 ? null : (activitiesOf({ events: events.slice(end) })[0] ?? null);
}

/** Everything readable in a history: the texts of the JSON with every payload decoded. */
export function textOf(history: unknown): string {
  return JSON.stringify(history, (_, value: unknown) => {
    if (value instanceof Uint8Array) return Buffer.from(value).toString('utf8');
    if (typeof value === 'bigint') return value.toString();
    return value;
  });
}

function valuesOf(payloads: readonly Payload[] | null | undefined): readonly unknown[] {
  return (payloads ?? []).map((payload): unknown => defaultPayloadConverter.fromPayload(payload));
}
