%% increment: the course's first server in Erlang. The server is loop/0: it receives a message and
%% sends it back plus one. The rest carries lines of TCP to it: one process a client, no state.
%% It listens on $HOST:$PORT; SIGTERM ends it.
%%
%%   erlc increment.erl && escript increment.beam
-module(increment).
-export([main/1, loop/0]).

-define(LONGEST, 64). % bytes of a line, its end included; a longer one is an error

%% The course's server: Msg + 1.
loop() ->
    receive
        {From, Msg} -> From ! {self(), Msg + 1}, loop()
    end.

main(_) ->
    {ok, Host} = inet:parse_address(os:getenv("HOST", "127.0.0.1")),
    Family = case tuple_size(Host) of 4 -> inet; 8 -> inet6 end,
    Port = list_to_integer(os:getenv("PORT", "0")),
    {ok, Listener} = gen_tcp:listen(Port, [Family, binary, {ip, Host}, {active, false}, {packet, line},
                                           {buffer, ?LONGEST}, {reuseaddr, true}, {backlog, 128}]),
    {ok, {Address, Chosen}} = inet:sockname(Listener),
    io:format(standard_error, "listening on ~s:~b~n", [inet:ntoa(Address), Chosen]),
    accept(Listener, spawn_link(?MODULE, loop, [])).

accept(Listener, Server) ->
    {ok, Client} = gen_tcp:accept(Listener),
    Handler = spawn(fun() -> receive go -> converse(Client, Server, <<>>) end end),
    ok = gen_tcp:controlling_process(Client, Handler), % the socket closes with its process
    Handler ! go,
    accept(Listener, Server).

%% A line longer than the buffer arrives in pieces: Before is what came of it so far.
converse(Client, Server, Before) ->
    case gen_tcp:recv(Client, 0) of
        {ok, Piece} ->
            case binary:last(Piece) of
                $\n ->
                    ok = gen_tcp:send(Client, [answer(line(Before, Piece), Server), $\n]),
                    converse(Client, Server, <<>>);
                _ ->
                    converse(Client, Server, line(Before, Piece))
            end;
        {error, _} -> ok % the client left; half a line is no line
    end.

line(Before, _) when byte_size(Before) > ?LONGEST -> Before; % an error already: its rest is dropped
line(Before, Piece) -> <<Before/binary, Piece/binary>>.

answer(Line, Server) ->
    case number(Line) of
        {ok, N} ->
            Server ! {self(), N},
            receive {Server, Next} -> integer_to_binary(Next) end;
        error -> <<"error want a whole number below 9223372036854775807">>
    end.

%% number accepts -?[0-9]+ below 2^63-1, with \r\n at its end as telnet and Windows send it.
number(Line) when byte_size(Line) > ?LONGEST -> error;
number(Line) ->
    case re:run(Line, <<"^(-?[0-9]+)\r?\n$">>, [{capture, [1], binary}]) of
        {match, [Digits]} ->
            case binary_to_integer(Digits) of
                N when N >= -9223372036854775808, N < 9223372036854775807 -> {ok, N};
                _ -> error
            end;
        nomatch -> error
    end.
