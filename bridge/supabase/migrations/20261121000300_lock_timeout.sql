-- A row that somebody keeps locked is waited for by the bridge, which tries again, not by a statement that
-- nobody listens to any more: those would use up the REST API's connections, one at each attempt.
alter function public.mirror_runs(jsonb) set lock_timeout = '5s';
